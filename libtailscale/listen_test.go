package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// takenListener is a listener as the caller of tailscale_listen has it.
type takenListener struct {
	t    testing.TB
	n    *node
	fd   int
	port int
}

var lastPort atomic.Int32

// listening listens on a port of n that no test has had.
func listening(t testing.TB, n *node) *takenListener {
	t.Helper()
	l := &takenListener{t: t, n: n, port: 20_000 + int(lastPort.Add(1))}
	l.open()
	return l
}

func (l *takenListener) open() {
	l.t.Helper()
	fd, err := l.n.listenFD("tcp", fmt.Sprintf(":%d", l.port))
	if err != nil {
		l.t.Fatal(err)
	}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 15}); err != nil {
		l.t.Fatal(err)
	}
	l.fd = fd
	l.t.Cleanup(l.shut)
}

// shut closes the descriptor, once.
func (l *takenListener) shut() {
	if l.fd >= 0 {
		syscall.Close(l.fd)
	}
	l.fd = -1
}

func (l *takenListener) address() string {
	l.t.Helper()
	return fmt.Sprintf("%s:%d", ownIP(l.t, l.n), l.port)
}

// take reads one message: the peer's address and the connection's descriptor.
func (l *takenListener) take() (peer string, fd int, err error) {
	frame, rights := make([]byte, acceptBytes), make([]byte, syscall.CmsgSpace(4))
	size, rightsSize, _, _, err := syscall.Recvmsg(l.fd, frame, rights, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return "", -1, err
	}
	if size != acceptBytes {
		return "", -1, fmt.Errorf("a message of %d bytes", size)
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:rightsSize])
	if err != nil || len(messages) != 1 {
		return "", -1, fmt.Errorf("%d control messages, %v", len(messages), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return "", -1, fmt.Errorf("descriptors %v, %v", fds, err)
	}
	text, padding, _ := bytes.Cut(frame, []byte{0})
	if len(bytes.Trim(padding, "\x00")) > 0 {
		return "", -1, fmt.Errorf("the message is not filled up with NUL: %q", frame)
	}
	return string(text), fds[0], nil
}

func (l *takenListener) next() *net.UnixConn {
	l.t.Helper()
	_, fd, err := l.take()
	if err != nil {
		l.t.Fatal(err)
	}
	return connOf(l.t, fd)
}

func TestAnAcceptedConnectionArrivesWithItsPeersAddress(t *testing.T) {
	caller, n := probe(t), joined(t, configFor(t, "acceptor"))
	acquainted(t, caller, n)
	l := listening(t, n)
	_, own6 := n.server.TailscaleIPs()
	for _, address := range []string{l.address(), netip.AddrPortFrom(own6, uint16(l.port)).String()} {
		c, err := dialWithin(caller, address, waitLimit)
		if err != nil {
			t.Fatal(err)
		}
		peer, fd, err := l.take()
		if err != nil {
			t.Fatal(err)
		}
		if peer != c.LocalAddr().String() {
			t.Errorf("the peer is %q and not %q", peer, c.LocalAddr())
		}
		far := connOf(t, fd)
		c.SetDeadline(time.Now().Add(waitLimit))
		send(t, c, "ping")
		receive(t, far, "ping")
		send(t, far, "pong")
		receive(t, c, "pong")
		c.Close()
	}
}

func TestHundredsOfConnectionsAtOnceAreEachAttributedToTheirPeer(t *testing.T) {
	const each = 170
	n := joined(t, configFor(t, "popular"))
	callers := []*node{joined(t, configFor(t, "caller-a")), joined(t, configFor(t, "caller-b"))}
	l := listening(t, n)
	for _, c := range callers {
		acquainted(t, c, n)
	}
	address := l.address()
	var wg sync.WaitGroup
	for _, caller := range callers {
		for range each {
			wg.Go(func() {
				c, err := dialWithin(caller, address, waitLimit)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(waitLimit))
				fmt.Fprintf(c, "%s\n", c.LocalAddr()) // says who it is
				if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "welcome "+c.LocalAddr().String()+"\n" {
					t.Errorf("%q, %v", answer, err)
				}
			})
		}
	}
	seen := map[string]int{}
	for range len(callers) * each {
		peer, fd, err := l.take()
		if err != nil {
			t.Fatal(err)
		}
		seen[netip.MustParseAddrPort(peer).Addr().String()]++
		far := connOf(t, fd)
		wg.Go(func() {
			defer far.Close()
			said, err := bufio.NewReader(far).ReadString('\n')
			if err != nil || said != peer+"\n" {
				t.Errorf("who is said to be %s says that it is %q, %v", peer, said, err)
			}
			fmt.Fprintf(far, "welcome %s\n", peer)
		})
	}
	wg.Wait()
	for _, c := range callers {
		if got := seen[ownIP(t, c).String()]; got != each {
			t.Errorf("%d connections of %s and not %d", got, c.cfg.Hostname, each)
		}
	}
}

func TestConnectionsWaitForACallerThatIsBusy(t *testing.T) {
	const all = 400
	caller, n := joined(t, configFor(t, "impatient")), joined(t, configFor(t, "busy"))
	acquainted(t, caller, n)
	l := listening(t, n)
	var wg sync.WaitGroup
	for range all {
		wg.Go(func() {
			c, err := dialWithin(caller, l.address(), waitLimit)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
		})
	}
	wg.Wait()
	time.Sleep(1500 * time.Millisecond) // longer than tsnet waits for somebody to accept
	for i := range all {
		far := l.next()
		far.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d of %d was not left open: %v", i, all, err)
		}
		t.Cleanup(func() { far.Close() })
	}
}

func TestWhatIsHandedOutIsCloseOnExecAndBlocks(t *testing.T) {
	n, p := probe(t), webPeer(t)
	caller := joined(t, configFor(t, "fd-caller"))
	acquainted(t, caller, n)
	l := listening(t, n)
	dialled, err := caller.dialFD(t.Context(), "tcp", l.address())
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(dialled)
	_, accepted, err := l.take()
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(accepted)
	toPeer, err := n.dialFD(t.Context(), "tcp", p.v4(echoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(toPeer)
	for name, fd := range map[string]int{"the listener": l.fd, "dialled": dialled, "accepted": accepted, "dialled to the peer": toPeer} {
		closeOnExec, nonBlocking := fdFlags(t, fd)
		if !closeOnExec || nonBlocking {
			t.Errorf("%s: close-on-exec %v, non-blocking %v", name, closeOnExec, nonBlocking)
		}
		if kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err != nil || kind != syscall.SOCK_STREAM {
			t.Errorf("%s: it is no stream: %d %v", name, kind, err)
		}
	}
}

func TestEveryDescriptorOfTheNodeIsCloseOnExec(t *testing.T) {
	n := probe(t)
	openedLoopback(t, n)
	listening(t, n)
	opened(t, n, webPeer(t).v4(echoPort))
	for name, what := range openFDs(t) {
		if !strings.HasPrefix(what, "socket:") {
			continue
		}
		var fd int
		fmt.Sscan(name, &fd)
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); errno != 0 || fd <= 2 {
			continue
		}
		if closeOnExec, _ := fdFlags(t, fd); !closeOnExec {
			t.Errorf("descriptor %d (%s) would pass to a child", fd, what)
		}
	}
}

func TestEachEndOfAnAcceptedConnectionMayEndByItself(t *testing.T) {
	n := joined(t, configFor(t, "half"))
	caller := probe(t)
	acquainted(t, caller, n)
	l := listening(t, n)
	for _, firstToEnd := range []string{"caller", "acceptor"} {
		near := opened(t, caller, l.address())
		far := l.next()
		if firstToEnd == "acceptor" {
			near, far = far, near
		}
		send(t, near, "the last that I say")
		near.CloseWrite()
		if got := readAll(t, far); got != "the last that I say" {
			t.Errorf("%s first: %q", firstToEnd, got)
		}
		answer := strings.Repeat("and I go on for long. ", 20_000)
		go func() {
			far.Write([]byte(answer))
			far.Close()
		}()
		if got := readAll(t, near); got != answer {
			t.Errorf("%s first: %d bytes and not %d", firstToEnd, len(got), len(answer))
		}
	}
}

func TestClosingTheListenersDescriptorFreesThePort(t *testing.T) {
	caller, n := probe(t), joined(t, configFor(t, "relisten"))
	acquainted(t, caller, n)
	l := listening(t, n)
	_, err := n.listenFD("tcp", fmt.Sprintf(":%d", l.port))
	wantFailure(t, err, codeInvalid, "listen on")
	kept := opened(t, caller, l.address())
	far := l.next()

	l.shut()
	eventually(t, "the port can be listened on again", func() bool {
		fd, err := n.listenFD("tcp", fmt.Sprintf(":%d", l.port))
		if err == nil {
			syscall.Close(fd)
		}
		return err == nil
	})
	send(t, kept, "a connection that was accepted stays")
	receive(t, far, "a connection that was accepted stays")
	eventually(t, "nobody listens any more", func() bool {
		c, err := dialWithin(caller, l.address(), waitLimit)
		if err == nil {
			c.Close()
		}
		return codeOf(err) == codeRefused
	})
	l.open()
	opened(t, caller, l.address())
	l.next()
}

func TestAnAddressThatCannotBeListenedOnIsRefused(t *testing.T) {
	n := probe(t)
	for _, test := range []struct{ network, address string }{
		{"udp", ":5000"}, {"", ":5000"}, {"tcp4", ":5000"},
		{"tcp", ""}, {"tcp", "5000"}, {"tcp", ":"}, {"tcp", ":0"}, {"tcp", ":-1"}, {"tcp", ":65536"}, {"tcp", ":x"}, {"tcp", ":http"},
		{"tcp", "127.0.0.1:5000"}, {"tcp", "0.0.0.0:5000"}, {"tcp", "localhost:5000"}, {"tcp", "[::]:5000"},
	} {
		fd, err := n.listenFD(test.network, test.address)
		if err == nil {
			syscall.Close(fd)
			t.Errorf("%q %q is listened on", test.network, test.address)
			continue
		}
		wantFailure(t, err, codeInvalid)
		if fd != -1 {
			t.Errorf("a descriptor %d", fd)
		}
	}
}

func TestAListenerIsNotOnTheHostsOwnNetwork(t *testing.T) {
	l := listening(t, probe(t))
	for _, ip := range []string{"127.0.0.1", "::1", hostAddress.String()} {
		if c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, fmt.Sprint(l.port)), waitLimit); err == nil {
			c.Close()
			t.Errorf("the port is open on %s", ip)
		}
	}
}

func TestACallerThatDoesNotReadHoldsUpNobodyElse(t *testing.T) {
	n, caller := joined(t, configFor(t, "lazy")), probe(t)
	acquainted(t, caller, n)
	lazy, busy := listening(t, n), listening(t, n)
	const many = 400 // more than fit into a socket's buffer
	var wg sync.WaitGroup
	room := make(chan struct{}, 50)
	for range many {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if c, err := dialWithin(caller, lazy.address(), waitLimit); err == nil {
				fmt.Fprintln(c, c.LocalAddr())
				t.Cleanup(func() { c.Close() })
			}
		})
	}
	wg.Wait()
	near := opened(t, caller, busy.address())
	far := busy.next()
	send(t, near, "still here")
	receive(t, far, "still here")

	taken := 0
	syscall.SetsockoptTimeval(lazy.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 300_000})
	for {
		peer, fd, err := lazy.take()
		if err != nil {
			break
		}
		taken++
		c := connOf(t, fd)
		if said, err := bufio.NewReader(c).ReadString('\n'); err != nil || said != peer+"\n" {
			t.Errorf("who is said to be %s says that it is %q, %v", peer, said, err)
		}
		c.Close()
	}
	if taken < 100 || taken > many {
		t.Errorf("%d of %d connections waited for the caller", taken, many)
	}
	syscall.SetsockoptTimeval(lazy.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 15})
	opened(t, caller, lazy.address())
	lazy.next()
}

func TestClosingTheNodeEndsItsListenersAndConnections(t *testing.T) {
	caller := probe(t)
	n := joined(t, configFor(t, "closer"))
	acquainted(t, caller, n)
	l := listening(t, n)
	var ends []*net.UnixConn
	for range 20 {
		opened(t, caller, l.address())
		ends = append(ends, l.next())
	}
	opened(t, caller, l.address()) // waits in the listener's socket
	ends = append(ends, opened(t, n, webPeer(t).v4(chargenPort)))
	began := time.Now()
	if err := closeWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("the close took %v", took)
	}
	for i, c := range ends {
		c.SetDeadline(time.Now().Add(soon))
		if _, err := c.Read(make([]byte, 1<<20)); err == nil && i < 20 {
			t.Error("a connection goes on")
		} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Error("a connection neither goes on nor ends")
		}
	}
	l.next() // what was in the socket before the close is still there
	if peer, fd, err := l.take(); err == nil {
		t.Errorf("after the close %s arrives as %d", peer, fd)
	} else if err == syscall.EAGAIN {
		t.Error("the listener's socket does not end")
	}
	runtime.KeepAlive(ends)
}

func TestACloseWithHundredsOfConnectionsOpenIsNotHeldUp(t *testing.T) {
	const many = 450
	n, caller := joined(t, configFor(t, "crowded")), probe(t)
	acquainted(t, caller, n)
	l := listening(t, n)
	address := l.address()
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			c, err := dialWithin(caller, address, waitLimit)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
		})
	}
	for range many {
		_, fd, err := l.take()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
	}
	wg.Wait()
	began := time.Now()
	if err := closeWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*soon {
		t.Errorf("the close took %v", took)
	}
}

func TestACloseAfterManyConnectionsThatAreOverIsNotHeldUp(t *testing.T) {
	p := webPeer(t)
	n := joined(t, configFor(t, "short-lived"))
	awaitPeer(t, n, netip.MustParseAddr(p.IPs[0]))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 50 {
				c, err := dialWithin(n, p.v4(echoPort), waitLimit)
				if err != nil {
					t.Error(err)
					return
				}
				c.SetDeadline(time.Now().Add(waitLimit))
				c.Write([]byte("x"))
				c.Read(make([]byte, 1))
				c.Close()
			}
		})
	}
	wg.Wait()
	began := time.Now()
	if err := closeWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*soon {
		t.Errorf("the close took %v", took)
	}
}

func TestACloseInTheMidstOfTransfersIsNotHeldUp(t *testing.T) {
	p := webPeer(t)
	for i := range 2 {
		n := joined(t, configFor(t, fmt.Sprintf("uploader-%d", i)))
		awaitPeer(t, n, netip.MustParseAddr(p.IPs[0]))
		moved := make(chan struct{})
		for range 8 {
			c := opened(t, n, p.v4(discardPort))
			go func() {
				piece := make([]byte, 1<<16)
				for sent := 0; ; sent += len(piece) {
					if _, err := c.Write(piece); err != nil {
						return
					}
					if sent == 4<<20 {
						moved <- struct{}{}
					}
				}
			}()
		}
		for range 8 {
			outcome(t, "each upload is under way", waitLimit, moved)
		}
		began := time.Now()
		if err := closeWithin(n, waitLimit); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 3*soon {
			t.Errorf("the close took %v", took)
		}
	}
}

func TestListenersAndConnectionsLeaveNothingBehind(t *testing.T) {
	caller, n := probe(t), joined(t, configFor(t, "tidy"))
	acquainted(t, caller, n)
	warm := listening(t, n)
	opened(t, caller, warm.address()).Close()
	warm.next().Close()
	leavesNothing(t, func() {
		for range 10 {
			l := listening(t, n)
			for range 5 {
				c := opened(t, caller, l.address())
				far := l.next()
				send(t, c, "x")
				receive(t, far, "x")
				c.Close()
				far.Close()
			}
			l.shut()
		}
	})
}
