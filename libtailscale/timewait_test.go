package main

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// dialsFromPorts has n dial from a port, then from the one below it, and so on,
// instead of from ports drawn at random.
func dialsFromPorts(t testing.TB, n *node, port uint16) {
	t.Helper()
	field := reflect.ValueOf(n.server.Sys().Netstack.Get()).Elem().FieldByName("ipstack")
	ipstack := *(**stack.Stack)(field.Addr().UnsafePointer())
	dialer := n.server.Sys().Dialer.Get()
	dial := dialer.NetstackDialTCP
	dialer.NetstackDialTCP = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		if err := ipstack.SetPortRange(port, port); err != nil {
			t.Errorf("port %d: %v", port, err)
		}
		port--
		for {
			c, err := dial(ctx, to)
			// A connection that was closed lets go of its port some moments later.
			if err == nil || !strings.Contains(err.Error(), "no ports are available") {
				return c, err
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// dialled is a connection of n's and the port that it comes from.
func dialled(t testing.TB, n *node, address string) (net.Conn, uint16) {
	t.Helper()
	c, err := dialWithin(n, address, waitLimit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(waitLimit))
	return c, netip.MustParseAddrPort(c.LocalAddr().String()).Port()
}

func TestAPortWhoseConnectionThisNodeEndedIsSoonAnsweredAgain(t *testing.T) {
	caller, n := joined(t, configFor(t, "calls-twice")), joined(t, configFor(t, "hangs-up"))
	acquainted(t, caller, n)
	l := listening(t, n)
	c, port := dialled(t, caller, l.address())
	l.next().Close()
	readAll(t, c)
	c.Close()

	dialsFromPorts(t, caller, port)
	if _, got := dialled(t, caller, l.address()); got != port {
		t.Errorf("port %d was not answered, only %d", port, got)
	}
}

func TestAPeerThatDoesNotAnswerAPortIsDialledFromAnother(t *testing.T) {
	p, n := webPeer(t), joined(t, configFor(t, "persists"))
	awaitPeer(t, n, netip.MustParseAddr(p.IPs[0]))
	c, port := dialled(t, n, p.v4(httpPort))
	send(t, c, "GET / HTTP/1.0\r\n\r\n") // after which the peer is the first to end the connection
	readAll(t, c)
	c.Close()

	dialsFromPorts(t, n, port)
	if _, got := dialled(t, n, p.v4(httpPort)); got != port-1 {
		t.Errorf("the peer was reached from port %d, which it should not answer", got)
	}
}
