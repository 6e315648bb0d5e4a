package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"tailscale.com/ipn"
)

// tcpLimit bounds the life of one plain TCP connection.
const tcpLimit = 10 * time.Minute

// ports are what a peer listens on.
var ports = map[string]int{"http": 80, "http_alt": 8080, "https": 443, "echo": 7, "discard": 9, "chargen": 19}

// peerLine is the line that localnet peer prints.
type peerLine struct {
	self
	Ports map[string]int `json:"ports"`
}

// peerCommand is localnet peer: a node that serves HTTP in all its good and bad
// forms (hostile.go), HTTPS with a certificate that nobody trusts, and three of
// the oldest services there are: echo, discard and chargen.
func peerCommand(flags *flag.FlagSet) command {
	f := addNodeFlags(flags)
	routes := flags.String("routes", "", "comma-separated subnets to advertise")
	relayed := flags.Bool("relayed", false, "take no direct path until SIGUSR1")
	relay := flags.Bool("relay", false, "be a peer relay for others")
	return func(ctx context.Context, ready func(any) error) error {
		if *relayed {
			directOnSignal(ctx)
		}
		n, err := startNode(ctx, f)
		if err != nil {
			return err
		}
		defer n.leave()
		line := peerLine{Ports: ports}
		if line.self, err = n.self(ctx); err != nil {
			return err
		}
		if *routes != "" {
			if err := n.advertise(ctx, *routes); err != nil {
				return err
			}
		}
		if *relay {
			if err := n.relay(ctx); err != nil {
				return err
			}
		}
		if err := n.serve(ctx, line.self); err != nil {
			return err
		}
		if err := ready(line); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
}

// advertise offers subnets to the tailnet, and plays the first host of each:
// 10.1.0.1 of 10.1.0.0/24 answers HTTP on port 80.
func (n *tsNode) advertise(ctx context.Context, list string) error {
	prefs := &ipn.MaskedPrefs{AdvertiseRoutesSet: true}
	for s := range strings.SplitSeq(list, ",") {
		pfx, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("-routes: %w", err)
		}
		host := netip.AddrPortFrom(pfx.Masked().Addr().Next(), 80)
		n.RegisterFallbackTCPHandler(func(_, dst netip.AddrPort) (func(net.Conn), bool) {
			return func(c net.Conn) { greet(c, dst) }, dst == host
		})
		prefs.AdvertiseRoutes = append(prefs.AdvertiseRoutes, pfx)
	}
	_, err := n.lc.EditPrefs(ctx, prefs)
	return err
}

// greet answers one HTTP request. Not by an http.Server: the address of a host
// behind a router is netstack's only until the handler of the flow returns.
func greet(c net.Conn, me netip.AddrPort) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(hangLimit))
	if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
		body := fmt.Sprintf("Hello from %s, behind a router.\n", me.Addr())
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

// serve starts all of a peer's services. They end with the node.
func (n *tsNode) serve(ctx context.Context, me self) error {
	cert, err := selfSigned(me.Name, me.Hostname)
	if err != nil {
		return err
	}
	srv := quietServer(ctx, n.pages(me))
	overHTTP := func(ln net.Listener) { srv.Serve(ln) }
	services := map[string]func(net.Listener){
		"http":     overHTTP,
		"http_alt": overHTTP,
		"https": func(ln net.Listener) {
			srv.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}}))
		},
		"echo":    each(echo),
		"discard": each(func(c net.Conn) { io.Copy(io.Discard, c) }),
		"chargen": each(chargen),
	}
	for name, service := range services {
		ln, err := n.Listen("tcp", fmt.Sprintf(":%d", ports[name]))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		go service(ln)
	}
	return nil
}

// each serves every connection of a listener on its own, within tcpLimit.
func each(handle func(net.Conn)) func(net.Listener) {
	return func(ln net.Listener) {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(tcpLimit))
				handle(c)
			}()
		}
	}
}

// echo sends back what comes, and its end after the other's.
func echo(c net.Conn) {
	io.Copy(c, c)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

// chargen sends the pattern of patternBytes until the other side goes.
func chargen(c net.Conn) {
	writePattern(c, 1<<62)
}

// pages are the peer's HTTP pages: plain ones here, misbehaving ones in
// hostile.go.
func (n *tsNode) pages(me self) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		who := "someone that WhoIs does not know"
		if res, err := n.lc.WhoIs(r.Context(), r.RemoteAddr); err == nil {
			who = fmt.Sprintf("%s (%s)", strings.TrimSuffix(res.Node.Name, "."), res.UserProfile.LoginName)
			if len(res.Node.Tags) > 0 {
				who = fmt.Sprintf("%s (%s)", strings.TrimSuffix(res.Node.Name, "."), strings.Join(res.Node.Tags, ", "))
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "Hello from %s. You are %s.\n", me.Name, who)
	})
	plainPages(mux)
	hostilePages(mux)
	return mux
}
