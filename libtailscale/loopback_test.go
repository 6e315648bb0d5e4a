package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// apiCall is a request to a node's LocalAPI as the outside sends it; raw is the
// request target, as it stands on the wire.
func apiCall(t testing.TB, l *loopback, method, raw string, header map[string]string) (status int, body string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", l.addr(), waitLimit)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(waitLimit))
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", method, raw, l.addr())
	for k, v := range header {
		fmt.Fprintf(&b, "%s: %s\r\n", k, v)
	}
	send(t, c, b.String()+"\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, raw, err)
	}
	defer res.Body.Close()
	return res.StatusCode, readAll(t, res.Body)
}

// apiHeader is what LocalAPI wants.
func apiHeader(user, password string) map[string]string {
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth(user, password)
	return map[string]string{"Authorization": r.Header.Get("Authorization"), "Sec-Tailscale": "localapi"}
}

func openedLoopback(t testing.TB, n *node) *loopback {
	t.Helper()
	l, err := n.openLoopback()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTheLoopbackPortIsOpenedOnceAndOnLoopbackAlone(t *testing.T) {
	n := probe(t)
	var all sync.Map
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if l, err := n.openLoopback(); err == nil {
				all.Store(l.addr()+l.socksPassword+l.apiPassword, l)
			}
		})
	}
	wg.Wait()
	count := 0
	all.Range(func(_, v any) bool { count++; return true })
	if count != 1 {
		t.Errorf("20 callers got %d different ports", count)
	}
	l := openedLoopback(t, n)
	if ap := netip.MustParseAddrPort(l.addr()); ap.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("it is on %s", ap)
	}
	if len(l.socksPassword) < 20 || len(l.apiPassword) < 20 || l.socksPassword == l.apiPassword {
		t.Error("the passwords are short, or the same")
	}
}

func TestLocalAPIAnswersTheEndpointsInUse(t *testing.T) {
	l := openedLoopback(t, probe(t))
	for raw, holds := range map[string]string{
		"/localapi/v0/status":                                                  `"BackendState"`,
		"/localapi/v0/status?peers=false":                                      `"BackendState"`,
		"/localapi/v0/dns-query?name=web.tail1234.ts.net.&type=A":              `"Bytes"`,
		"/localapi/v0/tka/status":                                              `"Enabled"`,
		"/localapi/v0/tka%2Fstatus":                                            `"Enabled"`,
		"http://local-tailscaled.sock/localapi/v0/status?peers=false&x=%2e%2e": `"BackendState"`,
	} {
		status, body := apiCall(t, l, "GET", raw, apiHeader("", l.apiPassword))
		if status != 200 || !strings.Contains(body, holds) {
			t.Errorf("%s: %d %.200s", raw, status, body)
		}
	}
}

func TestLocalAPINeedsItsPasswordAndItsHeader(t *testing.T) {
	l := openedLoopback(t, probe(t))
	without := apiHeader("", l.apiPassword)
	delete(without, "Sec-Tailscale")
	other := apiHeader("", l.apiPassword)
	other["Sec-Tailscale"] = "yes"
	bearer := map[string]string{"Authorization": "Bearer " + l.apiPassword, "Sec-Tailscale": "localapi"}
	for name, header := range map[string]map[string]string{
		"nothing":              {},
		"the header alone":     {"Sec-Tailscale": "localapi"},
		"the password alone":   without,
		"another header":       other,
		"a wrong password":     apiHeader("", "x"+l.apiPassword[1:]),
		"an empty password":    apiHeader("", ""),
		"the SOCKS password":   apiHeader("", l.socksPassword),
		"the password as user": apiHeader(l.apiPassword, ""),
		"a bearer token":       bearer,
	} {
		status, body := apiCall(t, l, "GET", "/localapi/v0/status", header)
		if status != http.StatusUnauthorized || strings.Contains(body, "BackendState") {
			t.Errorf("%s: %d %.100s", name, status, body)
		}
	}
}

func TestLocalAPIRefusesEveryOtherEndpointAndEveryDetourToOne(t *testing.T) {
	l := openedLoopback(t, probe(t))
	header := apiHeader("", l.apiPassword)
	for _, raw := range []string{
		"/localapi/v0/prefs", "/localapi/v0/logout", "/localapi/v0/start", "/localapi/v0/login-interactive",
		"/localapi/v0/debug", "/localapi/v0/debug?action=restun", "/localapi/v0/serve-config", "/localapi/v0/pprof?name=heap",
		"/localapi/v0/profiles/", "/localapi/v0/set-dns", "/localapi/v0/tka/init", "/localapi/v0/tka/sign", "/localapi/v0/file-put/",
		"/localapi/v0/cert/x", "/localapi/v0/cert/", "/localapi/v0/cert", "/localapi/v0/cert/..", "/localapi/v0/cert/../prefs",
		"/localapi/v0/cert/a.b/../../prefs", "/localapi/v0/cert/a.b%2f..%2f..%2fprefs", "/localapi/v0/cert/%2e%2e/prefs",
		"/localapi/v0/cert/a.b/c", "/localapi/v0/cert/*.b.c", "/localapi/v0/cert/a.b%00", "/localapi/v0/cert/a.b%0a",
		"/localapi/v0/debug-packet-filter-rules", "/localapi/v0/ping/", "/localapi/v0/derpmap", "/localapi/v0/dial", "/localapi/v0/shutdown", "/localapi/v0/goroutines", "/localapi/v0/metrics",
		"/localapi/v0/", "/localapi/v0", "/localapi/v1/status", "/", "", "*", "/debug/pprof/",
		// Detours. What is open by one name is open by no other.
		"/localapi/v0/../v0/status", "/localapi/v0/./status", "/localapi/v0//status", "//localapi/v0/status", "/localapi//v0/status",
		"/localapi/v0/status/", "/localapi/v0/status/x", "/localapi/v0/status%00", "/localapi/v0/status%20", "/localapi/v0/status;x",
		"/localapi/v0/status/../prefs", "/localapi/v0/status/%2e%2e/prefs", "/localapi/v0/status%2f..%2fprefs", "/localapi/v0/%2e%2e/v0/prefs",
		"/localapi/v0/tka/../prefs", "/localapi/v0/tka/status/../../prefs", "/localapi/v0/status/..%2fprefs", "/localapi/v0/whois?addr=100.64.0.1", "/localapi/v0/STATUS",
		"/localapi/v0/status%3fpeers=false", "/x/localapi/v0/status", `/localapi/v0\status`, "/localapi/v0/prefs?/localapi/v0/status",
		"/localapi/v0/prefs%23/localapi/v0/status", "http://local-tailscaled.sock/localapi/v0/prefs",
	} {
		if raw == "" {
			continue // HTTP has no empty target
		}
		for _, method := range []string{"GET", "POST"} {
			status, body := apiCall(t, l, method, raw, header)
			if status != http.StatusForbidden && status != http.StatusBadRequest {
				t.Errorf("%s %s: %d %.100s", method, raw, status, body)
			}
		}
	}
}

func TestLocalAPIPingsAPeer(t *testing.T) {
	n, p := probe(t), webPeer(t)
	awaitRelay(t, n, netip.MustParseAddr(p.IPs[0]))
	l := openedLoopback(t, n)
	status, body := apiCall(t, l, "POST", "/localapi/v0/ping?type=disco&ip="+p.IPs[0], apiHeader("", l.apiPassword))
	if status != 200 || !strings.Contains(body, `"LatencySeconds"`) || !strings.Contains(body, `"Err":""`) {
		t.Errorf("%d %.200s", status, body)
	}
}

func TestLocalAPIGivesNoCertificateForAnotherName(t *testing.T) {
	l := openedLoopback(t, probe(t))
	// Not its own name: for that, the node would ask a certificate authority on the internet.
	status, body := apiCall(t, l, "GET", "/localapi/v0/cert/another.example.com?type=cert", apiHeader("", l.apiPassword))
	if status != 500 || !strings.Contains(body, "invalid domain") {
		t.Errorf("%d %.200s", status, body)
	}
}

func TestLocalAPITakesEachEndpointByItsOwnMethodAlone(t *testing.T) {
	l := openedLoopback(t, probe(t))
	paths := map[string]string{"cert/a.example": "GET"}
	maps.Copy(paths, apiEndpoints)
	for path, own := range paths {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "get"} {
			if method == own {
				continue
			}
			header := apiHeader("", l.apiPassword)
			header["X-HTTP-Method-Override"] = "GET"
			status, body := apiCall(t, l, method, apiPrefix+path, header)
			if status != http.StatusMethodNotAllowed && status != http.StatusForbidden {
				t.Errorf("%s %s: %d %.100s", method, path, status, body)
			}
		}
	}
}

func TestLocalAPIPassesTheNodesNoticesOnAsTheyCome(t *testing.T) {
	n := joined(t, configFor(t, "noticed"))
	l := openedLoopback(t, n)
	bus := watch(t, l)
	var first struct{ State *int }
	if err := bus.Decode(&first); err != nil {
		t.Fatal(err)
	}
	if err := logoutWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	for {
		var notice struct{ State *int }
		if err := bus.Decode(&notice); err != nil {
			t.Fatalf("the logout is not told: %v", err)
		}
		if notice.State != nil && *notice.State == 2 { // NeedsLogin
			return
		}
	}
}

// watch opens the stream of notices and gives its decoder.
func watch(t testing.TB, l *loopback) *json.Decoder {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+l.addr()+"/localapi/v0/watch-ipn-bus?mask=2", nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range apiHeader("", l.apiPassword) {
		req.Header.Set(k, v)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	return json.NewDecoder(res.Body)
}

func TestTheLoopbackPortIsGoneAfterTheClose(t *testing.T) {
	n := joined(t, configFor(t, "port-closer"))
	l := openedLoopback(t, n)
	silent, err := net.Dial("tcp", l.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	halfway := socksTo(t, n)
	halfway.put(socksGreeting())
	halfway.want(5, socksPassword)
	eventually(t, "both are being served", func() bool { return len(goroutinesIn("(*loopback).route")) >= 2 })
	if err := closeWithin(n, soon); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", l.addr()); err == nil {
		c.Close()
		t.Error("it still takes connections")
	}
	for name, c := range map[string]net.Conn{"one that said nothing": silent, "one in the middle of its greeting": halfway} {
		c.SetDeadline(time.Now().Add(soon))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s is still open: %v", name, err)
		}
	}
}

func TestRequestsThatAreGivenUpAtOnceDoNotHoldUpTheClose(t *testing.T) {
	n := joined(t, configFor(t, "given-up"))
	l := openedLoopback(t, n)
	leavesNothing(t, func() {
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				c, err := net.Dial("tcp", l.addr())
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Fprintf(c, "GET /localapi/v0/watch-ipn-bus HTTP/1.1\r\nHost: x\r\nSec-Tailscale: localapi\r\nAuthorization: %s\r\n\r\n",
					apiHeader("", l.apiPassword)["Authorization"])
				time.Sleep(time.Duration(i) * 10 * time.Microsecond) // at any moment of the answer
				c.Close()
			})
		}
		wg.Wait()
		began := time.Now()
		if err := closeWithin(n, waitLimit); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 3*soon {
			t.Errorf("the close took %v", took)
		}
	})
}

func TestTheLoopbackPortOutlivesALackOfDescriptors(t *testing.T) {
	n, p := probe(t), webPeer(t)
	l := openedLoopback(t, n)
	addr := netip.MustParseAddrPort(l.addr())
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(s)
	func() { // the connection arrives while no descriptor can be had
		giveBack := exhaustDescriptors(t)
		defer giveBack()
		if err := syscall.Connect(s, &syscall.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // nothing tells of an accept that failed
	}()
	reached(t, n, p.v4(echoPort))
	if _, err := syscall.Write(s, socksGreeting()); err != nil {
		t.Fatal(err)
	}
	syscall.SetsockoptTimeval(s, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 5})
	var b [2]byte
	if got, err := syscall.Read(s, b[:]); got != 2 || b[1] != socksPassword {
		t.Errorf("the connection that had to wait is answered with %v, %v", b[:max(got, 0)], err)
	}
}

// exhaustDescriptors lets this process open no more descriptors.
func exhaustDescriptors(t testing.TB) (giveBack func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
}

func TestAFetchGoesThroughTheLoopbackPort(t *testing.T) {
	n, p := probe(t), webPeer(t)
	c := reached(t, n, p.v4(httpPort))
	send(t, c, "GET / HTTP/1.0\r\nHost: web\r\n\r\n")
	answer, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(answer), "Hello from web.") || !strings.Contains(string(answer), "You are probe.") {
		t.Errorf("%v %s", err, answer)
	}
}
