package main

import (
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

// timeWait is this node's own. It outlasts the first repetition of a FIN (200 ms; a
// later one is reset, and both sides have ended by then), and is over before a SYN
// is repeated (1 s). WireGuard lets no segment through twice; one that is late
// would have to hit a random port and sequence number.
const timeWait = 500 * time.Millisecond

// shortenTimeWait makes connections that this node has ended keep their ports for
// timeWait only. Those of one minute could use up all that there are, too.
func shortenTimeWait(s *tsnet.Server) {
	stack := s.Sys().Netstack.Get().(*netstack.Impl) // an interface only because of an import cycle
	limit := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	_ = stack.SetTransportProtocolOption(tcp.ProtocolNumber, &limit) // fails for options that TCP does not know
}
