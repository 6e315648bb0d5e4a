package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"tailscale.com/tsnet"
	"tailscale.com/wgengine/netstack"
)

// Whoever ends a TCP connection first keeps its addresses and ports in TIME_WAIT,
// with gVisor for a minute. A SYN from the same port gVisor then offers to a
// listening endpoint (transport/tcp.Endpoint.handleTimeWaitSegments). netstack
// has none: its forwarder is not asked, and the SYN is dropped without a word, as
// is every repetition until the minute is over. Callers draw their ports at random
// from 49,536. If a peer has ended a thousand connections within a minute, one dial
// in fifty to it is not answered.

const (
	// timeWait is this node's own. It outlasts the first repetition of a FIN
	// (200 ms; a later one is reset, and both sides have ended by then), and is over
	// before a SYN is repeated (1 s). WireGuard lets no segment through twice; one
	// that is late would have to hit a random port and sequence number.
	timeWait = 500 * time.Millisecond
	// firstAttempt is longer than a round trip by any relay, and lets the SYN be
	// repeated once.
	firstAttempt = 2 * time.Second
)

// shortenTimeWait makes connections that this node has ended keep their ports for
// timeWait only. Those of one minute could use up all that there are, too.
func shortenTimeWait(s *tsnet.Server) {
	stack := s.Sys().Netstack.Get().(*netstack.Impl) // an interface only because of an import cycle
	limit := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	_ = stack.SetTransportProtocolOption(tcp.ProtocolNumber, &limit) // fails for options that TCP does not know
}

// dialPeer connects over the tailnet. The peer may have a netstack too (tsnet, or
// tailscaled in a container), with the port that was drawn in TIME_WAIT. So an
// attempt that is not answered is given up for one from another port, with twice
// the time.
func (n *node) dialPeer(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	for limit := firstAttempt; ; limit *= 2 {
		attempt, cancel := context.WithTimeout(ctx, limit)
		// Not UserDial: should the peer vanish now, that one would go out by the host.
		c, err := n.server.Sys().Dialer.Get().NetstackDialTCP(attempt, to)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return c, err
		}
	}
}
