package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"

	"tailscale.com/control/ts2021"
	"tailscale.com/hostinfo"
	"tailscale.com/tailcfg"
)

// questions counts the questions to control in this process.
var questions atomic.Int64

// known asks control whether it still has this device. The node itself cannot
// tell a deletion from an outage: either way its map poll ends and every new
// one fails, with pauses of up to 45 s between two attempts.
//
// The question is a map request of its own. 404 is what control answers about a
// device that it does not have: Tailscale's (tailscale/tailscale#12032, #20615)
// and Headscale (hscontrol/noise.go; 0.23 and 0.24 said 500, as of any failure).
// Nothing else is taken for a deletion: what it means may pass, and the device
// would be given up for nothing.
func (n *node) known(ctx context.Context) (bool, error) {
	if err := n.running(); err != nil {
		return false, err
	}
	status, err := n.api().StatusWithoutPeers(ctx)
	if err != nil {
		return false, failf(codeInternal, "status: %v", err)
	}
	if status.Self == nil || status.Self.PublicKey.IsZero() {
		return false, nil // it is not logged in
	}
	// A streaming request is meant to be read-only (tailcfg.MapRequest.Stream), but Headscale takes over from it what it
	// says about the device, also nothing at all (hscontrol/state, UpdateNodeFromMapRequest, since 0.27). Without its
	// disco key no peer would find the device any more.
	about := hostinfo.New()
	about.Hostname = n.cfg.Hostname
	body, err := json.Marshal(tailcfg.MapRequest{
		Version:  tailcfg.CurrentCapabilityVersion,
		NodeKey:  status.Self.PublicKey,
		DiscoKey: n.server.Sys().MagicSock.Get().DiscoPublicKey(),
		Hostinfo: about,
		Stream:   true,
	})
	if err != nil {
		return false, err
	}
	// A host of its own for each question, which the Noise client does not look at: its transport has one connection
	// a host, and the node's own may be stuck, or its dial, which takes 10 s to fail.
	url := fmt.Sprintf("https://unused-%d/machine/map", questions.Add(1))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Close = true
	ts2021.AddLBHeader(req, status.Self.PublicKey)
	code, err := n.askControl(ctx, req)
	switch {
	case err != nil && n.ctx.Err() != nil:
		return false, errNodeClosed
	case err != nil:
		return false, failf(codeUnreachable, "control gave no answer: %v", err)
	case code == http.StatusOK:
		return true, nil
	case code == http.StatusNotFound:
		return false, nil
	}
	return false, failf(codeUnreachable, "control answered HTTP %d", code)
}

// askControl sends req over the node's connection to control and returns the
// status of the answer. It ends with ctx, also where the dial does not.
func (n *node) askControl(ctx context.Context, req *http.Request) (int, error) {
	type outcome struct {
		code int
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	answered := make(chan outcome, 1)
	go func() {
		res, err := n.server.Sys().NoiseRoundTripper.Get().RoundTrip(req.WithContext(ctx))
		if err != nil {
			answered <- outcome{err: err}
			return
		}
		res.Body.Close()
		answered <- outcome{code: res.StatusCode}
	}()
	select {
	case o := <-answered:
		return o.code, o.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
