package main

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// hangLimit bounds everything here that would not end by itself.
const hangLimit = 120 * time.Second

// hostilePages adds the pages that do not behave: what a client must survive.
func hostilePages(mux *http.ServeMux) {
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.FormValue("code"))
		if err != nil || code < 300 || code > 399 {
			code = http.StatusFound
		}
		// Verbatim: http.Redirect would tidy up what is meant to be odd.
		w.Header()["Location"] = []string{r.FormValue("to")}
		w.WriteHeader(code)
	})
	for from, to := range map[string]string{"/loop": "/loop", "/loop/a": "/loop/b", "/loop/b": "/loop/a"} {
		mux.Handle(from, http.RedirectHandler(to, http.StatusFound))
	}
	mux.HandleFunc("/hang/headers", raw(func(c net.Conn, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Half: and then noth")
		awaitGone(c)
	}))
	mux.HandleFunc("/hang/body", raw(func(c net.Conn, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\nthe beginning of")
		awaitGone(c)
	}))
	mux.HandleFunc("/header-bomb", raw(headerBomb))
	mux.HandleFunc("/gzip-bomb", serveGzipBomb)
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(hangLimit))
		line := []byte(strings.Repeat("and so on ", 6553) + "\n")
		for began := time.Now(); r.Context().Err() == nil && time.Since(began) < hangLimit; {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/short", raw(func(c net.Conn, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\nfar less than that")
	}))
	mux.HandleFunc("/long", raw(func(c net.Conn, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nfive, and more than that")
		awaitGone(c)
	}))
	mux.HandleFunc("/garbage", raw(func(c net.Conn, _ *http.Request) {
		c.Write([]byte("\x16\x03\x00SSH-2.0-nope\r\n\x00\xff\xfe this is not HTTP\r\n\r\n"))
	}))
}

// raw makes a handler that has the bare connection for itself, for hangLimit at
// most.
func raw(handle func(net.Conn, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, "needs HTTP/1.1", http.StatusHTTPVersionNotSupported)
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(hangLimit))
		handle(c, r)
	}
}

// awaitGone waits until the client goes, or the connection's deadline.
func awaitGone(c net.Conn) {
	io.Copy(io.Discard, c)
}

// headerBomb sends 100,000 headers, or with ?mode=long one header of 10 MB.
func headerBomb(c net.Conn, r *http.Request) {
	io.WriteString(c, "HTTP/1.1 200 OK\r\n")
	if r.FormValue("mode") == "long" {
		io.WriteString(c, "X-Bomb: "+strings.Repeat("a", 10_000_000)+"\r\n")
	} else {
		var b bytes.Buffer
		for i := range 100_000 {
			fmt.Fprintf(&b, "X-Bomb-%d: %d\r\n", i, i)
		}
		c.Write(b.Bytes())
	}
	io.WriteString(c, "Content-Length: 2\r\n\r\nok")
	awaitGone(c)
}

// bombPiece is how many zeros one piece of the gzip bomb unpacks to.
const bombPiece = 1 << 20

// bombPieces are the first and every further piece of a gzip stream of zeros.
// Flushed at its end, each further piece refers to zeros alone, so they are all
// the same: a gibibyte costs one compression of two mebibytes.
var bombPieces = sync.OnceValues(func() (first, further []byte) {
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err) // the level is valid
	}
	zeros := make([]byte, bombPiece)
	next := func() []byte {
		b.Reset()
		z.Write(zeros)
		z.Flush()
		return bytes.Clone(b.Bytes())
	}
	return next(), next()
})

// serveGzipBomb sends one gzip stream of ?mib= mebibytes of zeros, 1024 unless
// told otherwise.
func serveGzipBomb(w http.ResponseWriter, r *http.Request) {
	mib, err := strconv.Atoi(r.FormValue("mib"))
	if err != nil || mib < 1 || mib > 4095 {
		mib = 1024
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Encoding", "gzip")
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(hangLimit))
	writeGzipZeros(w, mib)
}

func writeGzipZeros(w io.Writer, mib int) error {
	first, further := bombPieces()
	if _, err := w.Write([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")); err != nil {
		return err
	}
	zeros, sum := make([]byte, bombPiece), uint32(0)
	piece := first
	for range mib {
		if _, err := w.Write(piece); err != nil {
			return err
		}
		sum = crc32.Update(sum, crc32.IEEETable, zeros)
		piece = further
	}
	// An empty last block, then the checksum and the length modulo 2^32.
	end := binary.LittleEndian.AppendUint32([]byte{0x03, 0x00}, sum)
	_, err := w.Write(binary.LittleEndian.AppendUint32(end, uint32(mib)*bombPiece))
	return err
}
