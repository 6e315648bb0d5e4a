package main

import (
	"context"
	"net/http"

	"golang.org/x/net/http2"
	"tailscale.com/control/controlhttp/controlhttpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// machineKey is the context key of the machine that a request inside a Noise
// connection comes from.
type machineKey struct{}

// serveKey answers GET /key: the key that clients expect in the handshake.
func (c *control) serveKey(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, tailcfg.OverTLSPublicKeyResponse{
		LegacyPublicKey: c.legacyKey.Public(),
		PublicKey:       c.noiseKey.Public(),
	})
}

// serveNoise answers POST /ts2021: it turns the connection into an encrypted
// one and speaks HTTP/2 over it until it ends.
func (c *control) serveNoise(w http.ResponseWriter, r *http.Request) {
	conn, err := controlhttpserver.AcceptHTTP(r.Context(), w, r, c.noiseKey, nil)
	if err != nil {
		return // AcceptHTTP has answered
	}
	defer conn.Close()
	var h2 http2.Server
	h2.ServeConn(conn, &http2.ServeConnOpts{
		Context:    context.WithValue(r.Context(), machineKey{}, conn.Peer()),
		BaseConfig: &http.Server{Handler: c.inner},
	})
}

// innerHandler serves what clients ask for inside a Noise connection.
func (c *control) innerHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request, key.MachinePublic)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			machine, ok := r.Context().Value(machineKey{}).(key.MachinePublic)
			if !ok {
				writeError(w, http.StatusForbidden, "no machine key")
				return
			}
			h(w, r, machine)
		})
	}
	handle("POST /machine/register", c.serveRegister)
	handle("POST /machine/map", c.serveMap)
	handle("POST /machine/set-dns", c.serveSetDNS)
	handle("POST /machine/update-health", func(w http.ResponseWriter, r *http.Request, _ key.MachinePublic) {
		w.WriteHeader(http.StatusNoContent)
	})
	handle("GET /machine/tka/bootstrap", c.serveLockBootstrap)
	handle("GET /machine/tka/sync/offer", c.serveLockOffer)
	handle("GET /machine/tka/sync/send", c.serveLockSend)
	handle("GET /machine/tka/sign", c.serveLockSign)
	mux.HandleFunc("/", serveNotFound)
	return c.faults.guard(mux)
}
