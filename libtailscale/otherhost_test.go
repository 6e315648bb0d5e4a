package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Another host: this program again, in a network namespace of its own, on the
// other end of a cable. It is what allow_host_network may and may not reach.

const (
	otherHostVariable = "CCTAILSCALE_TEST_OTHER_HOST"
	ourCable          = "cct-here"
	otherCable        = "cct-there"
	ourCableIP        = "203.0.113.1"
	otherHostIP       = "203.0.113.7"
	otherHostIP6      = "2001:db8:1::7"
	otherHostPort     = 8007
)

// forbiddenThere are addresses that the other host has too. Each can be
// reached, and must not be.
var forbiddenThere = []string{
	"169.254.169.254", "168.63.129.16", "192.0.0.192", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe",
	"64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
}

// visit is a line of the other host's: someone connected to an address of its.
type visit struct {
	Ready bool
	To    string
}

// beOtherHost waits for its cable, gives it its addresses, and tells of every
// connection, until its stdin ends.
func beOtherHost() {
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "the other host:", err)
			os.Exit(1)
		}
	}
	fail(out.Encode(visit{}))
	_, err := in.ReadString('\n')
	fail(err)
	fail(ip("link set lo up"))
	fail(ip("link set %s up", otherCable))
	fail(ip("addr add %s/24 dev %s", otherHostIP, otherCable))
	fail(ip("addr add %s/64 dev %s nodad", otherHostIP6, otherCable))
	for _, a := range forbiddenThere {
		fail(ip("addr add %s dev lo", netip.PrefixFrom(netip.MustParseAddr(a), netip.MustParseAddr(a).BitLen())))
	}
	ln, err := net.Listen("tcp", fmt.Sprintf(":%d", otherHostPort))
	fail(err)
	fail(out.Encode(visit{Ready: true}))
	go func() {
		for {
			c, err := ln.Accept()
			fail(err)
			to := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			out.Encode(visit{To: to.String()})
			fmt.Fprintf(c, "this is %s", to)
			c.Close()
		}
	}()
	io.Copy(io.Discard, in)
}

func ip(format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %v %s", line, err, out)
	}
	return nil
}

// otherHost is the other host as the tests see it.
type otherHost struct {
	mu     sync.Mutex
	visits []string
}

func (o *otherHost) visited(ip string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(o.visits), func(v string) bool { return v != ip }))
}

// plugInOtherHost starts the other host and lays the cable. Where this may not
// be done, the test is left out.
func plugInOtherHost(t *testing.T) *otherHost {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{otherHostVariable + "=1", "PATH=" + os.Getenv("PATH")}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip("no second network namespace can be made here: ", err)
	}
	limit := time.AfterFunc(4*waitLimit, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
		limit.Stop()
	})
	o := &otherHost{}
	lines := json.NewDecoder(stdout)
	next := func() visit {
		var v visit
		if err := lines.Decode(&v); err != nil {
			t.Fatal("the other host has ended: ", err)
		}
		return v
	}
	next()
	if err := ip("link add %s type veth peer name %s netns %d", ourCable, otherCable, cmd.Process.Pid); err != nil {
		t.Skip("no virtual cable can be laid here: ", err)
	}
	t.Cleanup(func() { ip("link del %s", ourCable) })
	io.WriteString(stdin, "the cable is there\n")
	for _, do := range []string{"link set %s up", "addr add " + ourCableIP + "/24 dev %s", "addr add 2001:db8:1::1/64 dev %s nodad"} {
		if err := ip(do, ourCable); err != nil {
			t.Fatal(err)
		}
	}
	if !next().Ready {
		t.Fatal("the other host is not ready")
	}
	for _, a := range forbiddenThere {
		via := otherHostIP
		if netip.MustParseAddr(a).Is6() {
			via = otherHostIP6
		}
		if err := ip("route add %s via %s dev %s onlink", a, via, ourCable); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for {
			var v visit
			if lines.Decode(&v) != nil {
				return
			}
			o.mu.Lock()
			o.visits = append(o.visits, v.To)
			o.mu.Unlock()
		}
	}()
	return o
}

func at(ip string) string { return net.JoinHostPort(ip, fmt.Sprint(otherHostPort)) }

func TestTheHostsNetworkIsOpenedByTheSettingButNeverForMetadata(t *testing.T) {
	o := plugInOtherHost(t)
	c := configFor(t, "host-network")
	c.AllowHostNetwork = true
	allowed := joined(t, c)

	for _, ip := range append([]string{otherHostIP, otherHostIP6}, forbiddenThere...) {
		c, err := net.DialTimeout("tcp", at(ip), waitLimit) // the host itself reaches all of them
		if err != nil {
			t.Fatalf("the cable is bad: %v", err)
		}
		c.Close()
		eventually(t, "the other host sees a visit to "+ip, func() bool { return o.visited(ip) == 1 })
	}
	for _, ip := range []string{otherHostIP, otherHostIP6} {
		if got := readAll(t, opened(t, allowed, at(ip))); got != "this is "+ip {
			t.Errorf("%q", got)
		}
		_, err := dialWithin(probe(t), at(ip), waitLimit)
		wantFailure(t, err, codeNotOnTailnet)
	}
	for _, ip := range append([]string{ourCableIP, "2001:db8:1::1"}, forbiddenThere...) {
		_, err := dialWithin(allowed, at(ip), waitLimit)
		wantFailure(t, err, codeNotOnTailnet, "never dialled")
	}
	// The visits arrive in order: one more by the host shows that none is under way.
	last, err := net.DialTimeout("tcp", at(otherHostIP), waitLimit)
	if err != nil {
		t.Fatal(err)
	}
	last.Close()
	eventually(t, "the last visit is noted", func() bool { return o.visited(otherHostIP) == 3 })
	for _, ip := range forbiddenThere {
		if n := o.visited(ip); n != 1 {
			t.Errorf("%s was visited %d times more than by the host", ip, n-1)
		}
	}

	_, err = dialWithin(allowed, net.JoinHostPort(otherHostIP, "1"), waitLimit)
	wantFailure(t, err, codeRefused)
}
