package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
)

// waitLimit bounds every wait of these tests.
const waitLimit = 30 * time.Second

func TestMain(m *testing.M) {
	if err := needNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
	log.SetOutput(io.Discard)
	sealProcess()
	os.Exit(m.Run())
}

// world is a tailnet for one test.
type world struct {
	t    *testing.T
	ctx  context.Context
	line serveLine
	c    *control
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	opts := defaultOptions
	opts.EphemeralTimeout = 300 * time.Millisecond
	c, err := startControl(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, ctx: ctx, line: c.line(), c: c}
}

// request calls the admin API and decodes the answer into `into`, if not nil.
// It returns the status.
func (w *world) request(method, path string, body, into any) int {
	w.t.Helper()
	var sent io.Reader
	if body != nil {
		sent = bytes.NewReader(mustJSON(body))
	}
	req, err := http.NewRequestWithContext(w.ctx, method, w.line.AdminURL+path, sent)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			w.t.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
	}
	return res.StatusCode
}

// admin is request for calls that have to work.
func (w *world) admin(method, path string, body, into any) {
	w.t.Helper()
	var raw json.RawMessage
	if status := w.request(method, path, body, &raw); status != http.StatusOK {
		w.t.Fatalf("%s %s: %d %s", method, path, status, raw)
	}
	if into != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) node(ref string) nodeJSON {
	w.t.Helper()
	var n nodeJSON
	w.admin("GET", "/nodes/"+ref, nil, &n)
	return n
}

// newKey makes an auth key.
func (w *world) newKey(spec keySpec) string {
	w.t.Helper()
	var k struct{ Key string }
	w.admin("POST", "/keys", spec, &k)
	return k.Key
}

// event waits for the first event of a kind about a hostname after seq.
func (w *world) event(kind, hostname string, after int64) event {
	w.t.Helper()
	var got struct{ Events []event }
	q := url.Values{"kind": {kind}, "hostname": {hostname}, "after": {fmt.Sprint(after)}, "wait_ms": {fmt.Sprint(waitLimit.Milliseconds())}}
	w.admin("GET", "/events?"+q.Encode(), nil, &got)
	if len(got.Events) == 0 {
		w.t.Fatalf("no event %q about %q within %v", kind, hostname, waitLimit)
	}
	return got.Events[0]
}

// flags are the options of a node with the tailnet's usual key.
func (w *world) flags(hostname string) *nodeFlags {
	return &nodeFlags{control: w.line.ControlURL, authKey: w.line.AuthKey, hostname: hostname, ephemeral: true}
}

// start starts a node, which is closed at the end of the test.
func (w *world) start(f *nodeFlags) (*tsNode, error) {
	ctx, cancel := context.WithTimeout(w.ctx, waitLimit)
	defer cancel()
	n, err := startNode(ctx, f)
	if err == nil {
		w.t.Cleanup(func() { n.Close(); os.RemoveAll(n.tempDir) })
	}
	return n, err
}

// join is start for nodes that have to come up.
func (w *world) join(hostname string) *tsNode {
	w.t.Helper()
	return w.joinAs(w.flags(hostname))
}

func (w *world) joinAs(f *nodeFlags) *tsNode {
	w.t.Helper()
	n, err := w.start(f)
	if err != nil {
		w.t.Fatalf("%s does not join: %v", f.hostname, err)
	}
	return n
}

// joining starts a node in the background and returns what comes of it.
func (w *world) joining(f *nodeFlags) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := w.start(f)
		done <- err
	}()
	return done
}

func (w *world) outcome(done <-chan error) error {
	w.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(waitLimit):
		w.t.Fatal("the node neither joins nor fails")
		return nil
	}
}

// eventually waits for something that no event announces.
func (w *world) eventually(what string, true func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(waitLimit); !true(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within %v: %s", waitLimit, what)
		}
	}
}

func (w *world) status(n *tsNode) *ipnstate.Status {
	w.t.Helper()
	st, err := n.lc.Status(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// peer finds a peer in n's status by the first label of its name.
func (w *world) peer(n *tsNode, label string) *ipnstate.PeerStatus {
	w.t.Helper()
	for _, p := range w.status(n).Peer {
		if strings.HasPrefix(p.DNSName, label+".") {
			return p
		}
	}
	return nil
}

// awaitState waits for a state on n's IPN bus.
func (w *world) awaitState(n *tsNode, want ipn.State) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, waitLimit)
	defer cancel()
	bus, err := n.lc.WatchIPNBus(ctx, ipn.NotifyInitialState)
	if err != nil {
		w.t.Fatal(err)
	}
	defer bus.Close()
	for {
		msg, err := bus.Next()
		if err != nil {
			w.t.Fatalf("waiting for state %v: %v", want, err)
		}
		if msg.State != nil && *msg.State == want {
			return
		}
	}
}

// serveHello makes n answer HTTP on port 80 with a pages handler.
func (w *world) serveHello(n *tsNode) {
	w.t.Helper()
	me, err := n.self(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := n.serve(w.ctx, me); err != nil {
		w.t.Fatal(err)
	}
}

// fetch gets a page from a node through another.
func (w *world) fetch(from *tsNode, target string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(w.ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", target, nil)
	if err != nil {
		return "", err
	}
	client := from.HTTPClient()
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func (w *world) mustFetch(from *tsNode, target string) string {
	w.t.Helper()
	text, err := w.fetch(from, target, waitLimit)
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}
