package main

import (
	"context"
	"flag"
)

// helperLine is the line that localnet helper prints.
type helperLine struct {
	self
	SOCKS    string  `json:"socks,omitempty"` // ip:port
	User     string  `json:"user,omitempty"`
	Password string  `json:"password,omitempty"`
	StartMS  float64 `json:"start_ms"` // from the call of Start to the state Running, this process already up
}

// helperCommand is localnet helper: what cc-tailscale replaces, to be measured
// beside it. It is a tsnet node with the SOCKS port of Server.Loopback, which
// also dials addresses outside of the tailnet.
func helperCommand(flags *flag.FlagSet) command {
	f := addNodeFlags(flags)
	joinOnly := flags.Bool("join-only", false, "join, print how long it took, log out and exit")
	return func(ctx context.Context, ready func(any) error) error {
		n, err := startNode(ctx, f)
		if err != nil {
			return err
		}
		defer n.leave()
		line := helperLine{User: "tsnet", StartMS: float64(n.joined.Microseconds()) / 1000}
		if line.self, err = n.self(ctx); err != nil {
			return err
		}
		if *joinOnly {
			line.User = ""
			return ready(line)
		}
		if line.SOCKS, line.Password, _, err = n.Loopback(); err != nil {
			return err
		}
		if err := ready(line); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
}
