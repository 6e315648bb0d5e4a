package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// derpRegions are the relays that a tailnet has: code and name.
var derpRegions = [][2]string{{"lo1", "Loopback One"}, {"lo2", "Loopback Two"}, {"lo3", "Loopback Three"}}

// startDERP starts the relays and their STUN servers, until ctx ends, and
// returns the map that leads nodes to them.
func startDERP(ctx context.Context) (*tailcfg.DERPMap, error) {
	m := &tailcfg.DERPMap{
		Regions: map[int]*tailcfg.DERPRegion{},
		// Devices in one place share a home relay. If they did not, a node that
		// talks before its own relay is connected would lose the answer, and
		// WireGuard tries again only after 5 s.
		HomeParams: &tailcfg.DERPHomeParams{RegionScore: map[int]float64{1: 0.01}},
	}
	cert, err := selfSigned("127.0.0.1")
	if err != nil {
		return nil, err
	}
	for i, names := range derpRegions {
		id := i + 1
		n, err := startRelay(ctx, cert)
		if err != nil {
			return nil, fmt.Errorf("relay %s: %w", names[0], err)
		}
		n.Name, n.RegionID = fmt.Sprintf("%da", id), id
		m.Regions[id] = &tailcfg.DERPRegion{RegionID: id, RegionCode: names[0], RegionName: names[1], Nodes: []*tailcfg.DERPNode{n}}
	}
	return m, nil
}

// startRelay starts one relay and one STUN server on free ports.
func startRelay(ctx context.Context, cert tls.Certificate) (*tailcfg.DERPNode, error) {
	stun := stunserver.New(ctx)
	if err := stun.Listen("127.0.0.1:0"); err != nil {
		return nil, err
	}
	go stun.Serve()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	relay := derpserver.New(key.NewNode(), logger.Discard)
	srv := &http.Server{
		Handler:   derpserver.Handler(relay),
		ErrorLog:  log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		// The relay takes the connection over, which HTTP/2 does not allow.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	go srv.ServeTLS(ln, "", "")
	context.AfterFunc(ctx, func() {
		srv.Close()
		relay.Close()
	})
	return &tailcfg.DERPNode{
		HostName: "127.0.0.1", IPv4: "127.0.0.1", IPv6: "none", STUNTestIP: "127.0.0.1",
		STUNPort:         stun.LocalAddr().(*net.UDPAddr).Port,
		DERPPort:         ln.Addr().(*net.TCPAddr).Port,
		InsecureForTests: true, // the certificate is our own
	}, nil
}
