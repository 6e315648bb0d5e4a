package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	// echoLimit bounds the body that /echo sends back.
	echoLimit = 8 << 20
	// bytesLimit bounds /bytes?n=.
	bytesLimit = 64 << 30
)

// plainPages adds the pages that behave.
func plainPages(mux *http.ServeMux) {
	mux.HandleFunc("/echo", serveEcho)
	mux.HandleFunc("/bytes", serveBytes)
	mux.HandleFunc("/upload", serveUpload)
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			http.Error(w, "a status is 200 to 599", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(code)
		if code >= 300 || code == 200 || code == 201 {
			io.WriteString(w, strconv.Itoa(code)+" "+http.StatusText(code)+"\n")
		}
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.FormValue("ms"))
		pause(r.Context(), time.Duration(ms)*time.Millisecond)
		io.WriteString(w, "slow, but here\n")
	})
	mux.HandleFunc("/json", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"text": "grüß dich", "numbers": []float64{1, 2.5, -3}, "nothing": nil, "nested": map[string]bool{"yes": true}})
	})
	mux.HandleFunc("/latin1", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=iso-8859-1")
		w.Write([]byte("caf\xe9 cr\xe8me, 5 \xb5m\n"))
	})
	mux.HandleFunc("/binary", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		w.Write([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89\x00\xff\xfe"))
	})
	mux.HandleFunc("/cookies", func(w http.ResponseWriter, r *http.Request) {
		got := map[string]string{}
		for _, c := range r.Cookies() {
			got[c.Name] = c.Value
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "localnet", Path: "/", HttpOnly: true})
		http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark", Path: "/"})
		writeJSON(w, http.StatusOK, map[string]any{"received": got})
	})
}

// serveEcho answers with the request: method, path, query, headers and body. A
// body that is not UTF-8 comes as base64.
func serveEcho(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, echoLimit))
	if err != nil {
		http.Error(w, "body: "+err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	answer := map[string]any{
		"method": r.Method, "path": r.URL.Path, "query": r.URL.RawQuery, "host": r.Host,
		"headers": r.Header, "length": len(body),
	}
	if utf8.Valid(body) {
		answer["body"] = string(body)
	} else {
		answer["body_base64"] = base64.StdEncoding.EncodeToString(body)
	}
	writeJSON(w, http.StatusOK, answer)
}

// pattern is what /bytes and chargen send: byte i is i modulo 251, a prime, so
// that a piece that is lost or moved shows.
var pattern = func() []byte {
	b := make([]byte, 251*1024)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}()

// writePattern writes the first n bytes of the endless pattern.
func writePattern(w io.Writer, n int64) error {
	for n > 0 {
		piece := pattern[:min(n, int64(len(pattern)))]
		if _, err := w.Write(piece); err != nil {
			return err
		}
		n -= int64(len(piece))
	}
	return nil
}

// serveBytes answers /bytes?n=&type= with n bytes of the pattern.
func serveBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
	if err != nil || n < 0 || n > bytesLimit {
		http.Error(w, "n is the number of bytes, at most 64 GiB", http.StatusBadRequest)
		return
	}
	contentType := r.FormValue("type")
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	if r.Method != http.MethodHead {
		writePattern(w, n)
	}
}

// serveUpload drains the body and answers with its size and SHA-256.
func serveUpload(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, "body: "+err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"size": n, "sha256": hex.EncodeToString(sum.Sum(nil))})
}

// pause waits for d, at most hangLimit, or until the client goes.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(min(d, hangLimit)):
	case <-ctx.Done():
	}
}
