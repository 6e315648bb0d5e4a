package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"tailscale.com/types/key"
)

// control is a running control server with its relays and its admin API.
type control struct {
	net       *tailnet
	faults    *faults
	noiseKey  key.MachinePrivate
	legacyKey key.MachinePrivate // clients ask for it and have no use for it
	inner     http.Handler       // what is served inside Noise connections
	door      *door
	relays    []*door
	adminURL  string
	outageMu  sync.Mutex // one change of the faults at a time
}

// options are what the command line of serve can choose.
type options struct {
	Domain           string
	Suffix           string
	EphemeralTimeout time.Duration
}

var defaultOptions = options{Domain: "example.com", Suffix: "tail1234.ts.net", EphemeralTimeout: 3 * time.Second}

// serveLine is the line that localnet serve prints.
type serveLine struct {
	ControlURL     string   `json:"control_url"`
	AdminURL       string   `json:"admin_url"`
	MagicDNSSuffix string   `json:"magic_dns_suffix"`
	Tailnet        string   `json:"tailnet"`
	AuthKey        string   `json:"auth_key"`      // reusable, preauthorized, untagged, of alice@
	ClientSecret   string   `json:"client_secret"` // may make keys with any tag
	DERPRegions    []string `json:"derp_regions"`
}

// serveCommand is localnet serve.
func serveCommand(flags *flag.FlagSet) command {
	opts := defaultOptions
	flags.StringVar(&opts.Domain, "domain", opts.Domain, "name of the tailnet")
	flags.StringVar(&opts.Suffix, "suffix", opts.Suffix, "MagicDNS suffix")
	flags.DurationVar(&opts.EphemeralTimeout, "ephemeral-timeout", opts.EphemeralTimeout, "how long an ephemeral node may be away")
	return func(ctx context.Context, ready func(any) error) error {
		c, err := startControl(ctx, opts)
		if err != nil {
			return err
		}
		if err := ready(c.line()); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
}

// startControl starts a control server, its relays and its admin API on
// loopback. They run until ctx ends.
func startControl(ctx context.Context, opts options) (*control, error) {
	c := &control{
		net:       newTailnet(opts.Domain, opts.Suffix),
		faults:    newFaults(),
		noiseKey:  key.NewMachine(),
		legacyKey: key.NewMachine(),
	}
	c.net.settings.EphemeralTimeout = opts.EphemeralTimeout
	derpMap, relays, err := startDERP(ctx, c.faults)
	if err != nil {
		return nil, err
	}
	c.net.derpMap, c.relays = mustJSON(derpMap), relays
	c.inner = c.innerHandler()
	srv := quietServer(ctx, c.outerHandler())
	if c.door, err = openDoor(func(ln net.Listener) { srv.Serve(ln) }); err != nil {
		return nil, err
	}
	adminLn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c.adminURL = "http://" + adminLn.Addr().String()
	admin := quietServer(ctx, c.adminHandler())
	go admin.Serve(adminLn)
	go c.net.reap(ctx)
	context.AfterFunc(ctx, func() {
		c.door.shut()
		admin.Close()
	})
	return c, nil
}

// quietServer makes an HTTP server that does not log and whose requests end
// with ctx.
func quietServer(ctx context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ErrorLog:          log.New(io.Discard, "", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 30 * time.Second,
	}
}

func (c *control) url() string { return "http://" + c.door.addr }

// line makes the first auth key and OAuth client and describes the tailnet.
func (c *control) line() serveLine {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	k := c.net.addKeyLocked(keySpec{Reusable: true, Preauthorized: true})
	oc := c.net.addOAuthClientLocked(nil)
	var regions []string
	for _, names := range derpRegions {
		regions = append(regions, names[0])
	}
	return serveLine{
		ControlURL:     c.url(),
		AdminURL:       c.adminURL,
		MagicDNSSuffix: c.net.suffix,
		Tailnet:        c.net.domain,
		AuthKey:        k.Key,
		ClientSecret:   c.clientSecret(oc),
		DERPRegions:    regions,
	}
}

// clientSecret is an OAuth client's secret with the attributes that lead the
// Tailscale client to this server with it.
func (c *control) clientSecret(oc *oauthClient) string {
	return fmt.Sprintf("%s?ephemeral=true&preauthorized=true&baseURL=%s", oc.secret, c.url())
}

// outerHandler serves what clients and people ask for outside of Noise
// connections.
func (c *control) outerHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /key", c.serveKey)
	mux.HandleFunc("POST /ts2021", c.serveNoise)
	mux.HandleFunc("GET /generate_204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /a/{id}", c.serveLoginPage)
	mux.HandleFunc("POST /a/{id}", c.serveLoginPage)
	mux.HandleFunc("POST /api/v2/oauth/token", c.serveOAuthToken)
	mux.HandleFunc("POST /api/v2/tailnet/{tailnet}/keys", c.serveAPIKeys)
	mux.HandleFunc("/", serveNotFound)
	return c.faults.guard(mux)
}

// setFaults applies a set of faults. When it returns, an outage has begun or
// the ports are open again.
func (c *control) setFaults(set faultSet) error {
	c.outageMu.Lock()
	defer c.outageMu.Unlock()
	c.net.freeze(set.Outage || set.Hang, set.Outage)
	c.faults.put(set)
	errs := []error{c.door.hold(!set.Outage)}
	for _, relay := range c.relays {
		errs = append(errs, relay.hold(!set.DERPOutage))
	}
	return errors.Join(errs...)
}

func serveNotFound(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, "there is no "+r.Method+" "+r.URL.Path+" here")
}

// writeError answers with an error in the form of Tailscale's API.
func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]string{"message": message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// readJSON decodes the request's body, and answers 400 if it cannot.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	b, err := readBody(r)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, "bad request body: "+err.Error())
		return false
	}
	return true
}
