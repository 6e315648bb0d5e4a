package main

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/tsnet"
)

// floorLimit bounds the fetches of one call of /floor.
const floorLimit = 10_000

// serveAPI serves the control API on loopback, for whoever has the token:
//
//	GET /status            LocalAPI's status, with all peers
//	GET /whois?addr=       LocalAPI's whois
//	GET /floor?url=&times=&at_once=   fetches from within; the milliseconds of each
//	GET /floor?url=&times=&at_once=&upload=   the same with POST of so many bytes
//	GET /floor?url=&times=&at_once=&save_to=  the same into a new file
func serveAPI(s *tsnet.Server, lc *local.Client) (url, token string, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	token = rand.Text()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(lc.Status(r.Context()))
	})
	mux.HandleFunc("GET /whois", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(lc.WhoIs(r.Context(), r.FormValue("addr")))
	})
	client := s.HTTPClient()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = floorLimit
	mux.HandleFunc("GET /floor", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(floor(client, r))
	})
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) != 1 {
			http.Error(w, "the token is wrong", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	return "http://" + ln.Addr().String(), token, nil
}

// answer writes a value as JSON, or why there is none.
func answer(w http.ResponseWriter) func(any, error) {
	return func(v any, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
}

// floored is the answer of /floor.
type floored struct {
	Milliseconds []float64 `json:"milliseconds"` // of each fetch
	Seconds      float64   `json:"seconds"`      // of all
	Bytes        int64     `json:"bytes"`        // of all bodies
}

// floor fetches a page so many times, some of them at once, and drops it or
// saves it.
func floor(client *http.Client, r *http.Request) (*floored, error) {
	times, err := strconv.Atoi(r.FormValue("times"))
	if err != nil || times < 1 || times > floorLimit {
		return nil, fmt.Errorf("times is 1 to %d", floorLimit)
	}
	atOnce, err := strconv.Atoi(r.FormValue("at_once"))
	if err != nil || atOnce < 1 || atOnce > times {
		return nil, fmt.Errorf("at_once is 1 to times")
	}
	upload, err := strconv.ParseInt(cmp.Or(r.FormValue("upload"), "0"), 10, 64)
	if err != nil || upload < 0 {
		return nil, fmt.Errorf("upload is a number of bytes")
	}
	var (
		mu      sync.Mutex
		total   floored
		failure error
		workers sync.WaitGroup
	)
	began := time.Now()
	next := make(chan struct{}, times)
	for range times {
		next <- struct{}{}
	}
	close(next)
	for range atOnce {
		workers.Go(func() {
			for range next {
				began := time.Now()
				n, err := fetch(client, r.FormValue("url"), upload, r.FormValue("save_to"))
				mu.Lock()
				total.Milliseconds = append(total.Milliseconds, float64(time.Since(began).Microseconds())/1000)
				total.Bytes += n
				if err != nil {
					failure = err
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	total.Seconds = time.Since(began).Seconds()
	return &total, failure
}

// fetch gets a page, or sends so many bytes to it, and drops the answer or saves
// it to a file; the number of the answer's bytes.
func fetch(client *http.Client, url string, upload int64, saveTo string) (n int64, err error) {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return 0, err
	}
	if upload > 0 {
		req.Method, req.ContentLength, req.Body = "POST", upload, io.NopCloser(io.LimitReader(zeros{}, upload))
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", url, resp.Status)
	}
	if saveTo == "" {
		return io.Copy(io.Discard, resp.Body)
	}
	file, err := os.OpenFile(saveTo, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return 0, err
	}
	defer func() { err = cmp.Or(err, file.Close()) }()
	return io.Copy(file, resp.Body)
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
