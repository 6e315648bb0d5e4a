package main

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// copyBytes is the size of a copy's buffer: the largest that still helped
// throughput when measured.
const copyBytes = 128 << 10

// lingerTimeout ends a connection of which one direction has ended and on whose
// other direction nothing moved for so long. A closed socket and a half-closed
// one look the same from the far end; see gone for those that do not.
const lingerTimeout = 5 * time.Minute

var buffers = sync.Pool{New: func() any { return new([copyBytes]byte) }}

// stream is a connection that can end one direction and keep the other.
type stream interface {
	net.Conn
	CloseWrite() error
}

// halfClosable gives every connection a CloseWrite; one that has none is closed
// whole by the end of the copy.
func halfClosable(c net.Conn) stream {
	if s, ok := c.(stream); ok {
		return s
	}
	return noHalfClose{c}
}

type noHalfClose struct{ net.Conn }

func (noHalfClose) CloseWrite() error { return nil }

// join copies both ways until both have ended, and closes both. An end of one
// direction is passed on as an end of that direction; an error ends both, and
// so does whoever closes one of them meanwhile.
func join(a, b stream) {
	defer a.Close()
	defer b.Close()
	resetOnClose(a, true) // what is cut off must not look complete
	resetOnClose(b, true)
	var wg sync.WaitGroup
	var ended, failed atomic.Bool // one direction has
	one := func(dst, src stream) {
		if err := pump(dst, src, &ended); err != nil {
			failed.Store(true)
			a.Close()
			b.Close()
			return
		}
		dst.CloseWrite()
		if gone(src) { // a peer that holds on must not keep all this
			resetOnClose(dst, false)
			a.Close()
			b.Close()
			return
		}
		// The other direction goes on, but not in silence for ever. Its pump may be
		// waiting already; from its next step on it sets these itself.
		ended.Store(true)
		dst.SetReadDeadline(time.Now().Add(lingerTimeout))
		src.SetWriteDeadline(time.Now().Add(lingerTimeout))
	}
	wg.Go(func() { one(a, b) })
	one(b, a)
	wg.Wait()
	if !failed.Load() {
		resetOnClose(a, false)
		resetOnClose(b, false)
	}
}

// resetOnClose has a later Close send a reset instead of an end, and drop what
// is not sent yet. Only the host's TCP connections can: gVisor's have no such
// call, so that a peer sees an end in any case.
func resetOnClose(c net.Conn, reset bool) {
	if tcp, ok := c.(interface{ SetLinger(sec int) error }); ok {
		if reset {
			tcp.SetLinger(0)
		} else {
			tcp.SetLinger(-1)
		}
	}
}

// gone tells whether the process has closed its end of a pair altogether, and
// has not merely ended its direction. Only Linux tells the two apart (POLLHUP).
func gone(c stream) bool {
	pair, ok := c.(*net.UnixConn)
	if !ok || runtime.GOOS != "linux" {
		return false
	}
	raw, err := pair.SyscallConn()
	if err != nil {
		return false
	}
	fds := make([]unix.PollFd, 1)
	raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		unix.Poll(fds, 0)
	})
	return fds[0].Revents&unix.POLLHUP != 0
}

// pump copies src to dst until src ends (nil) or either fails. Once the other
// direction has ended, each step may take lingerTimeout and no longer.
func pump(dst, src stream, ended *atomic.Bool) error {
	buf := buffers.Get().(*[copyBytes]byte)
	defer buffers.Put(buf)
	for {
		if ended.Load() {
			src.SetReadDeadline(time.Now().Add(lingerTimeout))
		}
		n, err := src.Read(buf[:])
		if n > 0 {
			noteMoved(n)
			if ended.Load() {
				dst.SetWriteDeadline(time.Now().Add(lingerTimeout))
			}
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// serve runs fn on a goroutine with c owned by the node: close ends it.
func (n *node) serve(c net.Conn, fn func()) {
	release := n.own(func() { c.Close() })
	go func() {
		defer release()
		fn()
	}()
}

// dialFD dials and hands out a descriptor of the connection.
func (n *node) dialFD(ctx context.Context, network, address string) (int, error) {
	if network != "tcp" {
		return -1, failf(codeInvalid, "the network must be \"tcp\", not %q", network)
	}
	remote, err := n.dial(ctx, address)
	if err != nil {
		return -1, err
	}
	local, fd, err := pair()
	if err != nil {
		remote.Close()
		return -1, err
	}
	n.serve(remote, func() { join(halfClosable(remote), local) })
	return fd, nil
}
