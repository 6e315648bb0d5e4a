package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/envknob"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/ipn/store/mem"
	"tailscale.com/tsnet"
)

const (
	// joinLimit bounds how long a node may take to be running.
	joinLimit = 60 * time.Second
	// leaveLimit bounds the logout on the way out.
	leaveLimit = 3 * time.Second
)

// tsNode is a running tsnet node of this program.
type tsNode struct {
	*tsnet.Server
	lc      *local.Client
	tempDir string        // removed at the end; empty if the directory was given
	joined  time.Duration // from the call of Start to the state Running
}

// nodeFlags are the options that every kind of node has.
type nodeFlags struct {
	control, authKey, hostname, tags, dir string
	ephemeral                             bool
}

func addNodeFlags(flags *flag.FlagSet) *nodeFlags {
	var f nodeFlags
	flags.StringVar(&f.control, "control", "", "URL of the control server (required)")
	flags.StringVar(&f.authKey, "authkey", "", "auth key, or OAuth client secret with -tags")
	flags.StringVar(&f.hostname, "hostname", "", "hostname (required)")
	flags.StringVar(&f.tags, "tags", "", "comma-separated tags")
	flags.StringVar(&f.dir, "dir", "", "state directory, which is kept; default: state in memory")
	flags.BoolVar(&f.ephemeral, "ephemeral", true, "leave the tailnet at the end (false needs -dir)")
	return &f
}

// sealProcess makes sure that no node of this process sends logs, asks a router
// for a port, or takes a key or a control server from the environment. It acts
// once, before the first node exists: nodes read what it sets.
var sealProcess = sync.OnceFunc(func() {
	envknob.SetNoLogsNoSupport()
	envknob.Setenv("TS_DISABLE_PORTMAPPER", "1")
	// A node with a state directory writes part of its map there whether or not
	// control allows it (ipnlocal.onHomeDERPUpdateLocked), and starting with such
	// a leftover it is "Running" before control has answered, or has refused it.
	envknob.Setenv("TS_USE_CACHED_NETMAP", "false")
	for _, name := range []string{
		"TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_SECRET", "TS_CLIENT_ID", "TS_ID_TOKEN", "TS_AUDIENCE",
		"TS_CONTROL_URL", "TSNET_FORCE_LOGIN",
	} {
		os.Unsetenv(name)
	}
})

// needNetwork says what is missing where a node could never come up: Tailscale
// takes a host that has no address beside loopback to be offline.
func needNetwork() error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() && !n.IP.IsLoopback() {
			return nil
		}
	}
	return errors.New("this network has no address beside loopback, so a node would wait for a network for ever; " +
		"give it one: ip link set lo up; ip addr add 10.99.0.1/32 dev lo")
}

// startNode starts a node and waits until it is running.
func startNode(ctx context.Context, f *nodeFlags) (_ *tsNode, err error) {
	if f.control == "" || f.hostname == "" {
		return nil, errors.New("-control and -hostname are required")
	}
	if !f.ephemeral && f.dir == "" {
		return nil, errors.New("-ephemeral=false needs -dir: the node's state has to be kept somewhere")
	}
	if err := needNetwork(); err != nil {
		return nil, err
	}
	sealProcess()
	n := &tsNode{Server: &tsnet.Server{
		Hostname: f.hostname, AuthKey: f.authKey, ControlURL: f.control, Ephemeral: f.ephemeral, Dir: f.dir,
		UserLogf: func(string, ...any) {},
	}}
	if f.tags != "" {
		n.AdvertiseTags = strings.Split(f.tags, ",")
	}
	if f.dir == "" {
		if n.tempDir, err = os.MkdirTemp("", "localnet-node-"); err != nil {
			return nil, err
		}
		n.Dir, n.Store = n.tempDir, new(mem.Store)
	}
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	began := time.Now()
	if err := n.Start(); err != nil {
		os.RemoveAll(n.tempDir)
		return nil, err
	}
	if n.lc, err = n.LocalClient(); err == nil {
		err = awaitRunning(ctx, n.lc)
	}
	if err != nil {
		n.leave()
		return nil, err
	}
	n.joined = time.Since(began)
	return n, nil
}

// awaitRunning watches the IPN bus until the node is running, or until it is
// clear that it will not be.
func awaitRunning(ctx context.Context, lc *local.Client) error {
	w, err := lc.WatchIPNBus(ctx, ipn.NotifyInitialState)
	if err != nil {
		return err
	}
	defer w.Close()
	var waitsFor string
	for {
		msg, err := w.Next()
		switch {
		case err != nil && waitsFor != "":
			return fmt.Errorf("the node is not running; it waits for %s", waitsFor)
		case err != nil:
			return fmt.Errorf("the node is not running: %w", err)
		case msg.ErrMessage != nil:
			return errors.New(*msg.ErrMessage)
		case msg.BrowseToURL != nil && *msg.BrowseToURL != "":
			waitsFor = "a login at " + *msg.BrowseToURL
			fmt.Fprintln(os.Stderr, "localnet: log in at", *msg.BrowseToURL)
		case msg.State == nil:
		case *msg.State == ipn.Running:
			return nil
		case *msg.State == ipn.NeedsMachineAuth:
			waitsFor = "the device to be approved"
		}
	}
}

// self is what a node's line of JSON says about it.
type self struct {
	Hostname string   `json:"hostname"`
	Name     string   `json:"name"` // FQDN without the dot
	IPs      []string `json:"ips"`
}

func (n *tsNode) self(ctx context.Context) (self, error) {
	st, err := n.lc.StatusWithoutPeers(ctx)
	if err != nil {
		return self{}, err
	}
	return selfOf(st), nil
}

func selfOf(st *ipnstate.Status) self {
	return self{
		Hostname: st.Self.HostName,
		Name:     strings.TrimSuffix(st.Self.DNSName, "."),
		IPs:      texts(st.TailscaleIPs),
	}
}

// leave logs an ephemeral node out and closes it. One that is to be kept is
// only closed.
func (n *tsNode) leave() {
	if n.Ephemeral && n.lc != nil {
		ctx, cancel := context.WithTimeout(context.Background(), leaveLimit)
		defer cancel()
		// Without an answer control still notices that the node is away.
		_ = n.lc.Logout(ctx)
	}
	n.Close()
	if n.tempDir != "" {
		os.RemoveAll(n.tempDir)
	}
}
