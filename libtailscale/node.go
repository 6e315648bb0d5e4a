package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/store"
	"tailscale.com/tsnet"
)

// prefsTimeout bounds the call that sets the preferences after a start; it is
// answered in this process.
const prefsTimeout = 5 * time.Second

// stateFile is the name of tsnet's state in its directory.
const stateFile = "tailscaled.state"

// config is the JSON document of tailscale_new; tailscale.h describes it.
type config struct {
	Hostname         string   `json:"hostname"`
	StateDir         string   `json:"state_dir"`
	ControlURL       string   `json:"control_url"`
	AuthKey          string   `json:"auth_key"`
	ClientSecret     string   `json:"client_secret"`
	Tags             []string `json:"tags"`
	Ephemeral        bool     `json:"ephemeral"`
	AcceptRoutes     bool     `json:"accept_routes"`
	UploadLogs       bool     `json:"upload_logs"`
	AllowHostNetwork bool     `json:"allow_host_network"`
	Verbose          bool     `json:"verbose"`
	Redact           []string `json:"redact"`
}

func parseConfig(text string) (config, error) {
	var c config
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&c)
	if err == nil && !errors.Is(d.Decode(new(json.RawMessage)), io.EOF) {
		err = errors.New("something follows the object")
	}
	if err != nil {
		// The decoder's text can quote a value, and a value can be a key.
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) && typ.Field != "" {
			return c, failf(codeInvalid, "configuration: %q has the wrong type", typ.Field)
		}
		if strings.HasPrefix(err.Error(), "json: unknown field") {
			return c, failf(codeInvalid, "configuration: %s", strings.TrimPrefix(err.Error(), "json: "))
		}
		return c, failf(codeInvalid, "configuration: not a JSON object")
	}
	switch {
	case c.Hostname == "":
		return c, failf(codeInvalid, "configuration: hostname is missing")
	case c.StateDir == "":
		return c, failf(codeInvalid, "configuration: state_dir is missing")
	case secretOf(c.AuthKey, c.ClientSecret) != "" && len(c.Tags) == 0:
		return c, failf(codeInvalid, "configuration: an OAuth client secret needs tags")
	}
	return c, nil
}

// secretOf is the OAuth client secret, wherever it was given. An auth key wins.
func secretOf(authKey, clientSecret string) string {
	if strings.HasPrefix(authKey, oauthPrefix) {
		return authKey
	}
	if authKey == "" {
		return clientSecret
	}
	return ""
}

// node is one tsnet server and all that hangs on it. Its life is
// newNode -> start -> (openLoopback, dial, listen, login, logout) -> close.
type node struct {
	cfg     config
	secrets *secrets
	server  *tsnet.Server
	ctx     context.Context // ends with close
	cancel  context.CancelFunc

	startOnce sync.Once
	started   chan struct{} // closed when the start has ended
	startErr  error         // set before started is closed
	serves    bool          // the server is there and has to be closed; set before started is closed

	mu        sync.Mutex
	loopback  *loopback
	loggingIn *login         // nil: none is beginning
	onClose   map[int]func() // what close has to end, by number
	number    int

	asking func() *http.Client // of whois

	closeOnce sync.Once
	closed    chan struct{} // closed when all is closed
}

func newNode(configText string) (*node, error) {
	cfg, err := parseConfig(configText)
	if err != nil {
		return nil, err
	}
	prepareProcess(cfg.UploadLogs)
	secrets := newSecrets(slices.Concat(cfg.Redact, []string{cfg.AuthKey, cfg.ClientSecret})...)
	logf := nodeLog(cfg.Verbose, secrets)
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{
		cfg:     cfg,
		secrets: secrets,
		server: &tsnet.Server{
			Dir:           cfg.StateDir,
			Hostname:      cfg.Hostname,
			ControlURL:    cfg.ControlURL,
			Ephemeral:     cfg.Ephemeral,
			AdvertiseTags: cfg.Tags,
			UserLogf:      logf,
			Logf:          logf,
		},
		ctx:     ctx,
		cancel:  cancel,
		started: make(chan struct{}),
		onClose: map[int]func(){},
		closed:  make(chan struct{}),
	}
	n.asking = sync.OnceValue(n.newAsking)
	return n, nil
}

// start starts the server, once, and waits for that with a bound. tsnet must
// not be closed while it starts, so the start always runs to its end.
func (n *node) start(ctx context.Context) error {
	n.startOnce.Do(func() {
		go func() {
			defer close(n.started)
			n.startErr = n.run()
		}()
	})
	select {
	case <-n.started:
	case <-n.ctx.Done():
	case <-ctx.Done():
		return failf(codeTimeout, "the start did not end in time")
	}
	return n.running()
}

var errNodeClosed = failf(codeClosed, "the node was closed")

func (n *node) run() error {
	key, err := n.authKey(n.ctx, n.cfg.AuthKey, n.cfg.ClientSecret)
	if err != nil {
		return err
	}
	n.server.AuthKey = key
	// Opened here and not by tsnet, which leaves its engine running when it
	// cannot open it.
	n.server.Store, err = store.New(n.server.Logf, filepath.Join(n.cfg.StateDir, stateFile))
	if err != nil {
		return stateFailure(err)
	}
	if n.ctx.Err() != nil { // closed during the exchange; nothing has started
		return errNodeClosed
	}
	if err := uncollected(n.server.Start); err != nil {
		return startFailure(err)
	}
	n.serves = true
	shortenTimeWait(n.server)
	// Not n.ctx: given up in its midst, the call leaves a connection to LocalAPI
	// for which tsnet's close waits five seconds.
	ctx, cancel := context.WithTimeout(context.Background(), prefsTimeout)
	defer cancel()
	_, err = n.api().EditPrefs(ctx, &ipn.MaskedPrefs{
		Prefs:       ipn.Prefs{RouteAll: n.cfg.AcceptRoutes},
		RouteAllSet: true,
	})
	noteMoved(1) // a start leaves garbage too
	if n.ctx.Err() != nil {
		return errNodeClosed
	}
	return err
}

// authKey is the key to join with: the given one, or one for the client secret.
func (n *node) authKey(ctx context.Context, authKey, clientSecret string) (string, error) {
	if secret := secretOf(authKey, clientSecret); secret != "" {
		return exchangeSecret(ctx, secret, n.cfg.Tags, n.cfg.Ephemeral)
	}
	return authKey, nil
}

func startFailure(err error) error {
	var path *fs.PathError
	var damaged *json.SyntaxError
	if errors.As(err, &path) || errors.As(err, &damaged) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSPC) {
		return stateFailure(err)
	}
	return failf(codeInternal, "start: %v", err)
}

func stateFailure(err error) error {
	return failf(codeState, "the state directory cannot be used: %v", err)
}

// api is the LocalAPI of this node, answered in this process. The server must
// have been started.
func (n *node) api() *local.Client {
	c, err := n.server.LocalClient()
	if err != nil {
		panic("tsnet: LocalClient after a start that succeeded: " + err.Error())
	}
	return c
}

// running reports whether the start has succeeded and no close has begun.
func (n *node) running() error {
	if n.ctx.Err() != nil { // first: a node that was closed may have started as well
		return errNodeClosed
	}
	select {
	case <-n.started:
		return n.startErr
	default:
		return failf(codeInvalid, "the node is not started")
	}
}

func (n *node) logout(ctx context.Context) error {
	if err := n.running(); err != nil {
		return err
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	if err := n.api().Logout(asking); err != nil {
		if n.ctx.Err() != nil {
			return errNodeClosed
		}
		if ctx.Err() != nil {
			return failf(codeTimeout, "control has not answered the logout in time")
		}
		return failf(codeInternal, "logout: %v", err)
	}
	return nil
}

// own gives close one more thing to end, and returns the function that ends it
// and takes it off the list. A node that is closed already ends it at once.
func (n *node) own(end func()) (release func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		end()
		return func() {}
	}
	n.number++
	id := n.number
	n.onClose[id] = end
	return func() {
		n.mu.Lock()
		_, mine := n.onClose[id]
		delete(n.onClose, id)
		n.mu.Unlock()
		if mine {
			end()
		}
	}
}

func (n *node) close(ctx context.Context) error {
	n.closeOnce.Do(func() {
		// A node that was never started must not start any more.
		n.startOnce.Do(func() {
			n.startErr = errNodeClosed
			close(n.started)
		})
		n.cancel()
		go n.shutdown()
	})
	select {
	case <-n.closed:
		return nil
	case <-ctx.Done():
		return failf(codeTimeout, "the node is still closing")
	}
}

func (n *node) shutdown() {
	defer close(n.closed)
	n.mu.Lock()
	ends := n.onClose
	n.onClose = map[int]func(){}
	beginning := n.loggingIn
	n.mu.Unlock()
	for _, end := range ends {
		end()
	}
	<-n.started
	if beginning != nil { // it would start a control client on a backend that is gone
		<-beginning.done
	}
	if n.serves {
		closeServer(n.server)
	}
	handBackMemory()
}

// pair makes the two ends of a stream: one for Go, one descriptor to hand out.
func pair() (*net.UnixConn, int, error) {
	fds, err := socketpair()
	if err != nil {
		return nil, -1, failf(codeInternal, "socketpair: %v", err)
	}
	conn, err := unixConn(fds[0])
	if err != nil {
		syscall.Close(fds[1])
		return nil, -1, failf(codeInternal, "socketpair: %v", err)
	}
	return conn, fds[1], nil
}
