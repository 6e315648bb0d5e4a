package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// pagesServer serves a peer's pages without a tailnet around them.
func pagesServer(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	plainPages(mux)
	hostilePages(mux)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

// rawGet sends a request and returns the bytes that come until they end with
// stop, until the server closes, or until the limit; and whether it closed.
func rawGet(t *testing.T, srv *httptest.Server, path, stop string, limit time.Duration) (got []byte, closed bool) {
	t.Helper()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: peer\r\n\r\n", path)
	c.SetReadDeadline(time.Now().Add(limit))
	buf := make([]byte, 1<<20)
	for {
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return got, err == io.EOF
		}
		if stop != "" && bytes.HasSuffix(got, []byte(stop)) {
			return got, false
		}
	}
}

func TestEchoTellsTheWholeRequest(t *testing.T) {
	srv := pagesServer(t)
	req, _ := http.NewRequest("PUT", srv.URL+"/echo?a=1", strings.NewReader("hello"))
	req.Header.Set("X-Odd", "yes")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got struct {
		Method, Path, Query, Body string
		Headers                   http.Header
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Method != "PUT" || got.Path != "/echo" || got.Query != "a=1" || got.Body != "hello" || got.Headers.Get("X-Odd") != "yes" {
		t.Errorf("got %+v", got)
	}
}

func TestBytesAreThePatternAndUploadSumsUp(t *testing.T) {
	srv := pagesServer(t)
	const n = 1_000_003
	res, err := http.Get(srv.URL + fmt.Sprintf("/bytes?n=%d&type=text/csv", n))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || len(body) != n || res.ContentLength != n || res.Header.Get("Content-Type") != "text/csv" {
		t.Fatalf("%d bytes of %d, %s, %v", len(body), res.ContentLength, res.Header.Get("Content-Type"), err)
	}
	for i, b := range body {
		if b != byte(i%251) {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
	res, err = http.Post(srv.URL+"/upload", "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got struct {
		Size   int
		SHA256 string
	}
	json.NewDecoder(res.Body).Decode(&got)
	want := sha256.Sum256(body)
	if got.Size != n || got.SHA256 != hex.EncodeToString(want[:]) {
		t.Errorf("upload says %+v", got)
	}
}

func TestTheGzipBombIsOneValidStreamOfZeros(t *testing.T) {
	var packed bytes.Buffer
	if err := writeGzipZeros(&packed, 64); err != nil {
		t.Fatal(err)
	}
	if packed.Len() > 128<<10 {
		t.Errorf("64 MiB take %d bytes", packed.Len())
	}
	// A reader of one member only: clients do not go on to a second one.
	in := bufio.NewReader(&packed)
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	z.Multistream(false)
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, z)
	if err != nil || n != 64<<20 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if want := crc32.ChecksumIEEE(make([]byte, 64<<20)); sum.Sum32() != want {
		t.Error("they are not all zeros")
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Error("something follows the stream")
	}
}

func TestHostilePagesMisbehaveAsTheySay(t *testing.T) {
	srv := pagesServer(t)
	const moment = 300 * time.Millisecond
	for _, tt := range []struct {
		path   string
		ends   string // what the bytes end with
		closed bool   // whether the server then closes
	}{
		{"/hang/headers", "and then noth", false},
		{"/hang/body", "the beginning of", false},
		{"/short", "Content-Length: 1000\r\n\r\nfar less than that", true},
		{"/long", "Content-Length: 5\r\n\r\nfive, and more than that", false},
		{"/garbage", "this is not HTTP\r\n\r\n", true},
	} {
		got, closed := rawGet(t, srv, tt.path, "", moment)
		if !strings.HasSuffix(string(got), tt.ends) || closed != tt.closed {
			t.Errorf("%s: closed %v after %q", tt.path, closed, got)
		}
	}
	bomb, _ := rawGet(t, srv, "/header-bomb", "\r\n\r\nok", waitLimit)
	if n := bytes.Count(bomb, []byte("X-Bomb-")); n != 100_000 {
		t.Errorf("the header bomb has %d headers", n)
	}
	long, _ := rawGet(t, srv, "/header-bomb?mode=long", "\r\n\r\nok", waitLimit)
	if len(long) < 10_000_000 {
		t.Errorf("the long header has %d bytes", len(long))
	}
	if endless, closed := rawGet(t, srv, "/endless", "", moment); closed || len(endless) < 1<<20 {
		t.Errorf("/endless: closed %v after %d bytes", closed, len(endless))
	}
}

func TestRedirectsGoWhereTheyAreToldAndInCircles(t *testing.T) {
	srv := pagesServer(t)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for path, want := range map[string]string{
		"/redirect?to=http://127.0.0.1:1/x&code=307": "307 http://127.0.0.1:1/x",
		"/redirect?to=//0177.0.0.1/":                 "302 //0177.0.0.1/",
		"/loop":                                      "302 /loop",
		"/loop/a":                                    "302 /loop/b",
		"/loop/b":                                    "302 /loop/a",
	} {
		res, err := client.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location")); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
