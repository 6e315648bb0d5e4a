package main

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// unixPair is the two ends of a stream, each with a deadline.
func unixPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	a, fd, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	a.SetDeadline(time.Now().Add(waitLimit))
	return a, connOf(t, fd)
}

// joinedPairs is two ends of a joined connection, and done when join is over.
func joinedPairs(t testing.TB) (left, right *net.UnixConn, done <-chan struct{}) {
	t.Helper()
	left, inner := unixPair(t)
	right, other := unixPair(t)
	return left, right, inBackground(func() struct{} { join(inner, other); return struct{}{} })
}

func TestAJoinCarriesBothWaysAndEndsWhenBothHaveEnded(t *testing.T) {
	left, right, done := joinedPairs(t)
	send(t, left, "to the right")
	receive(t, right, "to the right")
	send(t, right, "to the left")
	receive(t, left, "to the left")
	left.CloseWrite()
	if got := readAll(t, right); got != "" {
		t.Errorf("%q", got)
	}
	select {
	case <-done:
		t.Fatal("the end of one direction ended the other")
	default:
	}
	send(t, right, "the other way is open")
	right.CloseWrite()
	if got := readAll(t, left); got != "the other way is open" {
		t.Errorf("%q", got)
	}
	outcome(t, "the join ends", soon, done)
}

func TestTheCloseOfOneEndOfAJoinFreesTheOther(t *testing.T) {
	left, right, done := joinedPairs(t)
	send(t, left, "x")
	receive(t, right, "x")
	left.Close()
	if got := readAll(t, right); got != "" {
		t.Errorf("%q", got)
	}
	// Where a close and a half-close look the same, it takes something that is sent that way.
	right.Write([]byte("is anybody there?"))
	outcome(t, "the join ends", soon, done)
	if _, err := right.Write([]byte("x")); err == nil {
		t.Error("the far end can still be written to")
	}
}

func TestAPeerThatHoldsOnIsNotWaitedForOnceTheProcessHasClosedItsEnd(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a closed socket from a half-closed one")
	}
	left, right, done := joinedPairs(t)
	send(t, left, "the last word")
	left.Close()
	outcome(t, "the join ends", soon, done)
	if got := readAll(t, right); got != "the last word" {
		t.Errorf("%q", got)
	}
}

func TestAnErrorOfOneDirectionOfAJoinEndsBoth(t *testing.T) {
	left, inner := unixPair(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := inBackground(func() struct{} { join(inner, other.(*net.TCPConn)); return struct{}{} })
	far.(*net.TCPConn).SetLinger(0)
	far.Close() // a reset
	outcome(t, "the join ends", soon, done)
	if b, err := io.ReadAll(left); len(b) > 0 || err != nil {
		t.Errorf("%q %v", b, err)
	}
}

// tcpPair is the two ends of a connection over loopback.
func tcpPair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near, far = c.(*net.TCPConn), accepted.(*net.TCPConn)
	for _, c := range []net.Conn{near, far} {
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(waitLimit))
	}
	return near, far
}

func TestWhatIsCutOffIsResetAndDoesNotLookComplete(t *testing.T) {
	for how, cut := range map[string]func(inner, other *net.TCPConn, right *net.TCPConn){
		"the other side is reset":     func(_, _ *net.TCPConn, right *net.TCPConn) { right.SetLinger(0); right.Close() },
		"the node closes it":          func(inner, _ *net.TCPConn, _ *net.TCPConn) { inner.Close() },
		"the node closes its dialled": func(_, other *net.TCPConn, _ *net.TCPConn) { other.Close() },
	} {
		t.Run(how, func(t *testing.T) {
			left, inner := tcpPair(t)
			other, right := tcpPair(t)
			done := inBackground(func() struct{} { join(inner, other); return struct{}{} })
			send(t, right, "the first half")
			receive(t, left, "the first half")
			cut(inner, other, right)
			if _, err := left.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("not a reset but %v", err)
			}
			outcome(t, "the join ends", soon, done)
		})
	}
}

func TestWhatHasEndedBothWaysIsNotReset(t *testing.T) {
	left, inner := tcpPair(t)
	other, right := tcpPair(t)
	done := inBackground(func() struct{} { join(inner, other); return struct{}{} })
	long := strings.Repeat("x", 1<<20) // most of it still unread when the join is over
	go func() { right.Write([]byte(long)); right.CloseWrite() }()
	left.CloseWrite()
	if got := readAll(t, left); got != long {
		t.Errorf("%d bytes came", len(got))
	}
	outcome(t, "the join ends", soon, done)
}

func TestManyBytesBothWaysAtOnceArriveWhole(t *testing.T) {
	left, right, done := joinedPairs(t)
	const size = 8 << 20
	text := strings.Repeat("abcdefghijklmnop", size/16)
	for _, c := range []*net.UnixConn{left, right} {
		go func() {
			io.WriteString(c, text)
			c.CloseWrite()
		}()
	}
	other := inBackground(func() string { b, _ := io.ReadAll(right); return string(b) })
	if got := readAll(t, left); got != text {
		t.Errorf("%d bytes went left", len(got))
	}
	if got := outcome(t, "the right has all", waitLimit, other); got != text {
		t.Errorf("%d bytes went right", len(got))
	}
	outcome(t, "the join ends", soon, done)
}

func TestJoinsLeaveNothingBehind(t *testing.T) {
	leavesNothing(t, func() {
		for range 50 {
			left, right, done := joinedPairs(t)
			send(t, left, "x")
			receive(t, right, "x")
			left.Close()
			right.Close()
			outcome(t, "the join ends", soon, done)
		}
	})
}

// halfPipe is a stream in memory, for a time that passes only when all wait.
type halfPipe struct {
	net.Conn          // what is read, and what deadlines of reads hold for
	out      net.Conn // what is written
}

func (h halfPipe) Write(b []byte) (int, error)         { return h.out.Write(b) }
func (h halfPipe) CloseWrite() error                   { return h.out.Close() }
func (h halfPipe) SetWriteDeadline(at time.Time) error { return h.out.SetWriteDeadline(at) }
func (h halfPipe) Close() error                        { return errors.Join(h.Conn.Close(), h.out.Close()) }

func halfPipes() (a, b halfPipe) {
	a2b, b2a := [2]net.Conn{}, [2]net.Conn{}
	a2b[0], a2b[1] = net.Pipe()
	b2a[0], b2a[1] = net.Pipe()
	return halfPipe{b2a[1], a2b[0]}, halfPipe{a2b[1], b2a[0]}
}

func TestAHalfEndedConnectionOnWhichNothingMovesIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, inner := halfPipes()
		other, right := halfPipes()
		done := inBackground(func() struct{} { join(inner, other); return struct{}{} })
		synctest.Wait() // both directions wait for something to read
		began := time.Now()
		left.CloseWrite()
		<-done
		if took := time.Since(began); took != lingerTimeout {
			t.Errorf("after %v", took)
		}
		right.Close()
		left.Close()
	})
}

func TestAHalfEndedConnectionOnWhichSomethingMovesIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, inner := halfPipes()
		other, right := halfPipes()
		done := inBackground(func() struct{} { join(inner, other); return struct{}{} })
		left.CloseWrite()
		received := inBackground(func() int64 { n, _ := io.Copy(io.Discard, left); return n })
		const pieces = 10 // a slow download: in all ten times as long as silence may last
		for range pieces {
			time.Sleep(lingerTimeout - time.Second)
			if _, err := right.Write([]byte("a piece")); err != nil {
				t.Fatal("it was ended: ", err)
			}
		}
		right.CloseWrite()
		<-done
		if n := <-received; n != int64(pieces*len("a piece")) {
			t.Errorf("%d bytes arrived", n)
		}
		right.Close()
		left.Close()
	})
}

func TestAnOpenConnectionOnWhichNothingMovesIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, inner := halfPipes()
		other, right := halfPipes()
		done := inBackground(func() struct{} { join(inner, other); return struct{}{} })
		time.Sleep(24 * time.Hour)
		go left.Write([]byte("good morning"))
		b := make([]byte, 12)
		if _, err := io.ReadFull(right, b); err != nil {
			t.Fatal(err)
		}
		left.Close()
		right.Close()
		<-done
	})
}
