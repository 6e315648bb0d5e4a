package main

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"tailscale.com/client/tailscale/apitype"
)

// nobody is the answer about an address that no device of the tailnet has.
const nobody = "null"

// whoisLimit bounds one question. It is answered in this process, from memory.
const whoisLimit = 5 * time.Second

// whois asks LocalAPI which device has an address, an IP or "ip:port", and gives
// the answer as it is: one JSON document. "" stands for this node's own address.
//
// A listener asks before each request that it serves. Hence a call of its own:
// by way of the loopback port it takes twice the processor time.
func (n *node) whois(ctx context.Context, address string) (string, error) {
	if err := n.running(); err != nil {
		return "", err
	}
	if address == "" {
		own, _ := n.server.TailscaleIPs()
		if !own.IsValid() { // it has not joined
			return nobody, nil
		}
		address = own.String()
	}
	if _, err := netip.ParseAddrPort(address); err != nil {
		if _, err := netip.ParseAddr(address); err != nil {
			return "", failf(codeInvalid, "%q is not an IP address, with or without a port", address)
		}
	}
	type outcome struct {
		answer string
		err    error
	}
	answered := make(chan outcome, 1)
	go func() {
		answer, err := n.askWhois(address)
		answered <- outcome{answer, err}
	}()
	select {
	case o := <-answered:
		if o.err != nil && n.ctx.Err() != nil {
			return "", errNodeClosed
		}
		return o.answer, o.err
	case <-n.ctx.Done():
		return "", errNodeClosed
	case <-ctx.Done():
		return "", failf(codeTimeout, "the node did not say in time who has %s", address)
	}
}

// askWhois does not end with its caller: given up in its midst, it would leave a
// connection to LocalAPI for which tsnet's close waits five seconds.
func (n *node) askWhois(address string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), whoisLimit)
	defer cancel()
	where := "http://" + apitype.LocalAPIHost + "/localapi/v0/whois?addr=" + url.QueryEscape(address)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return "", err
	}
	res, err := n.asking().Do(req)
	if err != nil {
		return "", failf(codeInternal, "whois: %v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return "", failf(codeInternal, "whois: %v", err)
	case res.StatusCode == http.StatusNotFound:
		return nobody, nil
	case res.StatusCode != http.StatusOK:
		return "", failf(codeInternal, "whois: LocalAPI answered %d: %.200s", res.StatusCode, body)
	}
	return string(body), nil
}

// newAsking makes the client of whois. It has one connection, on which the
// questions queue: a second one might be dialled and then not be needed, and
// tsnet's close waits five seconds for one that was never used.
func (n *node) newAsking() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.api().Dial, MaxConnsPerHost: 1}}
}
