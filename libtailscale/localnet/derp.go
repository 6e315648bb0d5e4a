package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// derpRegions are the relays that a tailnet has: code and name.
var derpRegions = [][2]string{{"lo1", "Loopback One"}, {"lo2", "Loopback Two"}, {"lo3", "Loopback Three"}}

// startDERP starts the relays and their STUN servers, until ctx ends. It
// returns the map that leads nodes to them, and the relays' doors.
func startDERP(ctx context.Context, f *faults) (*tailcfg.DERPMap, []*door, error) {
	var doors []*door
	m := &tailcfg.DERPMap{
		Regions: map[int]*tailcfg.DERPRegion{},
		// Devices in one place share a home relay. If they did not, a node that
		// talks before its own relay is connected would lose the answer, and
		// WireGuard tries again only after 5 s.
		HomeParams: &tailcfg.DERPHomeParams{RegionScore: map[int]float64{1: 0.01}},
	}
	cert, err := selfSigned("127.0.0.1")
	if err != nil {
		return nil, nil, err
	}
	for i, names := range derpRegions {
		id := i + 1
		n, d, err := startRelay(ctx, cert, f)
		if err != nil {
			return nil, nil, fmt.Errorf("relay %s: %w", names[0], err)
		}
		doors = append(doors, d)
		n.Name, n.RegionID = fmt.Sprintf("%da", id), id
		m.Regions[id] = &tailcfg.DERPRegion{RegionID: id, RegionCode: names[0], RegionName: names[1], Nodes: []*tailcfg.DERPNode{n}}
	}
	return m, doors, nil
}

// startRelay starts one relay and one STUN server on free ports.
func startRelay(ctx context.Context, cert tls.Certificate, f *faults) (*tailcfg.DERPNode, *door, error) {
	stun := stunserver.New(ctx)
	if err := stun.Listen("127.0.0.1:0"); err != nil {
		return nil, nil, err
	}
	go stun.Serve()
	relay := derpserver.New(key.NewNode(), logger.Discard)
	srv := &http.Server{
		Handler:   derpserver.Handler(relay),
		ErrorLog:  log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		// The relay takes the connection over, which HTTP/2 does not allow.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	d, err := openDoor(func(ln net.Listener) { srv.ServeTLS(&lateListener{ln, f}, "", "") })
	if err != nil {
		return nil, nil, err
	}
	context.AfterFunc(ctx, func() {
		d.shut()
		srv.Close()
		relay.Close()
	})
	return &tailcfg.DERPNode{
		HostName: "127.0.0.1", IPv4: "127.0.0.1", IPv6: "none", STUNTestIP: "127.0.0.1",
		STUNPort:         stun.LocalAddr().(*net.UDPAddr).Port,
		DERPPort:         d.port,
		InsecureForTests: true, // the certificate is our own
	}, d, nil
}

// lateListener's connections are as late as the faults say.
type lateListener struct {
	net.Listener
	f *faults
}

func (l *lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lateConn{c, l.f}, nil
}

type lateConn struct {
	net.Conn
	f *faults
}

func (c *lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	set, _ := c.f.get()
	time.Sleep(time.Duration(set.DERPDelayMS) * time.Millisecond)
	return n, err
}
