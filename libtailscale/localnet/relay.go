package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"tailscale.com/envknob"
	_ "tailscale.com/feature/relayserver" // for -relay
	"tailscale.com/ipn"
)

// neverDirect is magicsock's knob that drops the pings by which two nodes find
// a direct path, both coming and going. One end of a path is enough.
const neverDirect = "TS_DEBUG_NEVER_DIRECT_UDP"

// directOnSignal keeps the nodes of this process off direct paths, so that they
// are reached through DERP or a peer relay, until it gets SIGUSR1.
func directOnSignal(ctx context.Context) {
	envknob.Setenv(neverDirect, "true")
	opened := make(chan os.Signal, 1)
	signal.Notify(opened, syscall.SIGUSR1)
	go func() {
		defer signal.Stop(opened)
		select {
		case <-opened:
			envknob.Setenv(neverDirect, "")
		case <-ctx.Done():
		}
	}()
}

// relay makes n a peer relay, on a free port. Whom it serves is the policy's to
// say: its clients need tailscale.com/cap/relay on it, and it needs
// tailscale.com/cap/relay-target on them.
func (n *tsNode) relay(ctx context.Context) error {
	_, err := n.lc.EditPrefs(ctx, &ipn.MaskedPrefs{
		Prefs:              ipn.Prefs{RelayServerPort: new(uint16)},
		RelayServerPortSet: true,
	})
	return err
}
