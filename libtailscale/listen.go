package main

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// handOverTimeout bounds how long an accepted connection waits for the process
// to take it; then it is closed and the listener with it, since nobody reads.
const handOverTimeout = 30 * time.Second

// maxWaiting bounds the accepted connections that wait to be handed over, beside
// the some 200 that the socket itself holds; one more is closed.
const maxWaiting = 512

// listenFD listens on the tailnet and hands out a socket on which accepted
// connections arrive; tailscale.h has the form.
func (n *node) listenFD(network, address string) (int, error) {
	if err := n.running(); err != nil {
		return -1, err
	}
	if network != "tcp" {
		return -1, failf(codeInvalid, "the network must be \"tcp\", not %q", network)
	}
	host, port, err := net.SplitHostPort(address)
	if number, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || host != "" || number == 0 {
		return -1, failf(codeInvalid, "the address must be \":port\", not %q", address)
	}
	ln, err := n.server.Listen(network, address)
	if err != nil {
		return -1, failf(codeInvalid, "listen on %s: %v", address, err)
	}
	out, fd, err := pair()
	if err != nil {
		ln.Close()
		return -1, err
	}
	release := n.own(func() { ln.Close(); out.Close() })
	go func() { // the caller sends nothing: a read ends when it has closed its end
		var b [1]byte
		out.Read(b[:])
		release()
	}()
	go func() {
		defer release()
		n.accept(ln, out)
	}()
	return fd, nil
}

// accept takes every connection at once: tsnet closes one that waits for longer
// than a second (listener.handle), which a busy process may need.
func (n *node) accept(ln net.Listener, out *net.UnixConn) {
	waiting := make(chan net.Conn, maxWaiting)
	go func() {
		defer close(waiting)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			select {
			case waiting <- c:
			default:
				c.Close()
			}
		}
	}()
	for c := range waiting {
		if err := n.handOver(c, out); errors.Is(err, errNoReader) {
			break
		}
	}
	ln.Close()
	for c := range waiting {
		c.Close()
	}
}

var errNoReader = errors.New("nobody takes connections from the listener's socket")

// handOver sends one accepted connection: the peer's address and a descriptor
// in one message.
func (n *node) handOver(c net.Conn, out *net.UnixConn) error {
	peer, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		c.Close()
		return err
	}
	local, fd, err := pair()
	if err != nil {
		c.Close()
		return err
	}
	defer syscall.Close(fd) // the message holds a reference of its own
	var frame [acceptBytes]byte
	copy(frame[:], netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()).String())
	out.SetWriteDeadline(time.Now().Add(handOverTimeout))
	if sent, _, err := out.WriteMsgUnix(frame[:], syscall.UnixRights(fd), nil); err != nil || sent != len(frame) {
		c.Close()
		local.Close()
		return errNoReader
	}
	n.serve(c, func() { join(halfClosable(c), local) })
	return nil
}
