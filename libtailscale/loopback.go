package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"regexp"
	"time"
)

const (
	// greetingTimeout bounds what a client of the loopback port may take until
	// its request is read.
	greetingTimeout = 10 * time.Second
	// acceptPause is how long the loopback port rests after an accept that failed.
	acceptPause = 20 * time.Millisecond
	socksUser   = "tsnet"
	apiPrefix   = "/localapi/v0/"
)

// apiEndpoints are the parts of LocalAPI in use. They read and ping; logout and
// the preferences have calls of their own or none. One more is open, see
// apiMethod: the node's own certificate.
var apiEndpoints = map[string]string{
	"status":        http.MethodGet,
	"dns-query":     http.MethodGet,
	"watch-ipn-bus": http.MethodGet,
	"tka/status":    http.MethodGet,
	"ping":          http.MethodPost,
}

// certPath is the path of a certificate's domain, below apiPrefix.
var certPath = regexp.MustCompile(`^cert/[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$`)

// apiMethod is the method of an endpoint that is open, or "".
func apiMethod(endpoint string) string {
	if certPath.MatchString(endpoint) {
		return http.MethodGet
	}
	return apiEndpoints[endpoint]
}

// loopback is one port on 127.0.0.1 for SOCKS5 and LocalAPI, told apart by the
// first byte: a SOCKS5 greeting begins with 5, an HTTP request with a letter.
type loopback struct {
	node          *node
	ln            net.Listener
	socksPassword string
	apiPassword   string
}

// openLoopback opens the port on the first call.
func (n *node) openLoopback() (*loopback, error) {
	if err := n.running(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	l := n.loopback
	if l != nil {
		n.mu.Unlock()
		return l, nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.mu.Unlock()
		return nil, failf(codeInternal, "the loopback port: %v", err)
	}
	l = &loopback{node: n, ln: ln, socksPassword: rand.Text(), apiPassword: rand.Text()}
	n.loopback = l
	n.mu.Unlock()

	handed := &handedListener{addr: ln.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: l.localAPI(), ReadHeaderTimeout: greetingTimeout}
	n.own(func() {
		ln.Close()
		handed.Close()
		server.Close()
	})
	go server.Serve(handed)
	go l.accept(handed)
	return l, nil
}

func (l *loopback) addr() string { return l.ln.Addr().String() }

func (l *loopback) accept(http *handedListener) {
	for {
		c, err := l.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is free, most likely
			time.Sleep(acceptPause)
			continue
		}
		go l.route(c.(*net.TCPConn), http)
	}
}

func (l *loopback) route(c *net.TCPConn, http *handedListener) {
	until := time.Now().Add(greetingTimeout)
	c.SetReadDeadline(until)
	b := &bufferedConn{TCPConn: c, r: bufio.NewReader(c)}
	release := l.node.own(func() { c.SetReadDeadline(time.Unix(1, 0)) })
	first, err := b.r.Peek(1)
	release()
	if err != nil {
		c.Close()
		return
	}
	if first[0] == socksVersion {
		c.SetReadDeadline(until)
		l.node.serve(c, func() { l.socks(b) })
		return
	}
	c.SetReadDeadline(time.Time{})
	http.hand(b)
}

// bufferedConn is a TCP connection of which some bytes were read ahead.
type bufferedConn struct {
	*net.TCPConn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) {
	if c.r.Buffered() > 0 {
		return c.r.Read(p)
	}
	return c.TCPConn.Read(p)
}

// handedListener is a net.Listener of connections that were accepted elsewhere.
type handedListener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
}

func (h *handedListener) hand(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

func (h *handedListener) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handedListener) Close() error {
	select {
	case <-h.done:
	default:
		close(h.done)
	}
	return nil
}

func (h *handedListener) Addr() net.Addr { return h.addr }

// localAPI passes the endpoints in use on to the node's LocalAPI, for whoever
// has the password.
func (l *loopback) localAPI() http.Handler {
	api := l.node.api()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http"
			r.Out.URL.Host = "local-tailscaled.sock" // what LocalAPI wants as its host
			r.Out.Host = r.Out.URL.Host
			r.Out.Header.Del("Authorization")
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return api.Dial(ctx, network, addr)
			},
			// A connection that is kept, or was dialled for a request that has been
			// given up, holds the close of tsnet's server up for five seconds.
			DisableKeepAlives: true,
		},
		FlushInterval: -1, // the bus is a stream
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why, status := l.refuses(r); why != "" {
			http.Error(w, why, status)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// refuses says why a request is not passed on to LocalAPI, and with which
// status, or "".
func (l *loopback) refuses(r *http.Request) (why string, status int) {
	_, password, _ := r.BasicAuth()
	switch method := apiMethod(trimAPI(r.URL.Path)); {
	case r.Header.Get("Sec-Tailscale") != "localapi",
		subtle.ConstantTimeCompare([]byte(password), []byte(l.apiPassword)) != 1:
		return "LocalAPI needs its password and the header Sec-Tailscale: localapi", http.StatusUnauthorized
	case method == "":
		return "this LocalAPI endpoint is not open", http.StatusForbidden
	case r.Method != method:
		return "this LocalAPI endpoint takes " + method, http.StatusMethodNotAllowed
	}
	return "", 0
}

func trimAPI(path string) string {
	if len(path) > len(apiPrefix) && path[:len(apiPrefix)] == apiPrefix {
		return path[len(apiPrefix):]
	}
	return ""
}
