package main

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"time"
)

// A SOCKS5 server (RFC 1928, user and password after RFC 1929) that knows
// CONNECT to an IP address and nothing else. tailscale.com/net/socks5 gives up a
// dial after five seconds, ends both directions with the first, and answers
// every failure with the same code; a caller needs all three otherwise.

const (
	socksVersion     = 5
	socksAuthVersion = 1
	socksPassword    = 2
	socksNoMethod    = 0xff
	socksConnect     = 1
	socksIPv4        = 1
	socksName        = 3
	socksIPv6        = 4

	socksSucceeded          = 0
	socksFailed             = 1
	socksNotAllowed         = 2
	socksUnreachable        = 4
	socksRefused            = 5
	socksTimedOut           = 6 // "TTL expired"
	socksCommandUnsupported = 7
	socksAddressUnsupported = 8

	// socksDialTimeout is an upper bound; the client hangs up earlier.
	socksDialTimeout = 60 * time.Second
)

var socksReplies = map[code]byte{
	codeNotOnTailnet: socksNotAllowed,
	codeUnreachable:  socksUnreachable,
	codeRefused:      socksRefused,
	codeTimeout:      socksTimedOut,
	codeInvalid:      socksAddressUnsupported,
}

// socks serves one connection to its end.
func (l *loopback) socks(c *bufferedConn) {
	defer c.Close()
	address, reply := socksRequest(c, l.socksPassword)
	if reply != socksSucceeded {
		writeSocksReply(c, reply)
		return
	}
	if address == "" {
		return // the greeting failed and was answered
	}
	c.SetReadDeadline(time.Time{})
	remote, err := l.dialWhileConnected(c, address)
	if err != nil {
		r, ok := socksReplies[codeOf(err)]
		if !ok {
			r = socksFailed
		}
		writeSocksReply(c, r)
		return
	}
	defer remote.Close()
	if writeSocksReply(c, socksSucceeded) == nil {
		join(c, halfClosable(remote))
	}
}

// dialWhileConnected gives up the dial when the client goes away. The client
// must not send before the reply (RFC 1928, 6), so that a read can only end.
func (l *loopback) dialWhileConnected(c *bufferedConn, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.node.ctx, socksDialTimeout)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if _, err := c.r.Peek(1); err != nil {
			cancel()
		}
	}()
	remote, err := l.node.dial(ctx, address)
	c.SetReadDeadline(time.Unix(1, 0)) // wakes the watch; what it read ahead stays in c.r
	<-watched
	c.SetReadDeadline(time.Time{})
	return remote, err
}

// socksRequest reads greeting, password and request. It returns the address to
// connect to, or the reply to give. Both are zero when the conversation ended
// before a request, in which case what was due is written.
func socksRequest(c io.ReadWriter, password string) (address string, reply byte) {
	var b [256]byte
	// Greeting: version, count, methods.
	if _, err := io.ReadFull(c, b[:2]); err != nil || b[0] != socksVersion {
		return "", socksSucceeded
	}
	methods := b[:b[1]]
	if _, err := io.ReadFull(c, methods); err != nil {
		return "", socksSucceeded
	}
	offered := false
	for _, m := range methods {
		offered = offered || m == socksPassword
	}
	if !offered {
		c.Write([]byte{socksVersion, socksNoMethod})
		return "", socksSucceeded
	}
	c.Write([]byte{socksVersion, socksPassword})
	if !readSocksPassword(c, password) {
		c.Write([]byte{socksAuthVersion, 1})
		return "", socksSucceeded
	}
	c.Write([]byte{socksAuthVersion, 0})
	return readSocksAddress(c)
}

func readSocksPassword(r io.Reader, password string) bool {
	var head [2]byte
	var user, given [255]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || head[0] != socksAuthVersion {
		return false
	}
	u := user[:head[1]]
	if _, err := io.ReadFull(r, u); err != nil {
		return false
	}
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return false
	}
	p := given[:head[0]]
	if _, err := io.ReadFull(r, p); err != nil {
		return false
	}
	sameUser := subtle.ConstantTimeCompare(u, []byte(socksUser))
	return subtle.ConstantTimeCompare(p, []byte(password))&sameUser == 1
}

func readSocksAddress(r io.Reader) (address string, reply byte) {
	var head [4]byte // version, command, reserved, address type
	if _, err := io.ReadFull(r, head[:]); err != nil || head[0] != socksVersion {
		return "", socksFailed
	}
	var size int
	switch head[3] {
	case socksIPv4:
		size = 4
	case socksIPv6:
		size = 16
	default: // a name among them: its resolution could leave the tailnet
		return "", socksAddressUnsupported
	}
	rest := make([]byte, size+2)
	if _, err := io.ReadFull(r, rest); err != nil {
		return "", socksFailed
	}
	if head[1] != socksConnect {
		return "", socksCommandUnsupported
	}
	ip, _ := netip.AddrFromSlice(rest[:size])
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(rest[size:])).String(), socksSucceeded
}

// writeSocksReply answers a request. The bound address is not told: it is the
// node's, and no client needs it.
func writeSocksReply(w io.Writer, reply byte) error {
	_, err := w.Write([]byte{socksVersion, reply, 0, socksIPv4, 0, 0, 0, 0, 0, 0})
	return err
}
