package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// dial connects to a port of the node called web.
func (w *world) dial(from *tsNode, port string) net.Conn {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, waitLimit)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", "web:"+port)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(waitLimit))
	return c
}

func TestAPeerEchoesDiscardsAndTalksOverPlainTCP(t *testing.T) {
	w := newWorld(t)
	web, caller := w.join("web"), w.join("caller")
	w.serveHello(web)
	sent := bytes.Repeat([]byte("0123456789"), 100_000)

	echoed := w.dial(caller, "7")
	go func() {
		echoed.Write(sent)
		echoed.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if got, err := io.ReadAll(echoed); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("echo: %d of %d bytes, %v", len(got), len(sent), err)
	}

	sink := w.dial(caller, "9")
	sink.Write(sent)
	sink.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(sink); err != nil || len(got) != 0 {
		t.Errorf("discard sent %d bytes, %v", len(got), err)
	}

	got := make([]byte, len(pattern)+10)
	if _, err := io.ReadFull(w.dial(caller, "19"), got); err != nil || !bytes.Equal(got[:len(pattern)], pattern) {
		t.Errorf("chargen does not send the pattern: %v", err)
	}
}

func TestAPeersCertificateIsTrustedByNobody(t *testing.T) {
	w := newWorld(t)
	web, caller := w.join("web"), w.join("caller")
	w.serveHello(web)
	_, err := w.fetch(caller, "https://web/", waitLimit)
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
	client := caller.HTTPClient()
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	defer client.CloseIdleConnections()
	res, err := client.Get("https://web/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if name := res.TLS.PeerCertificates[0].Subject.CommonName; name != "web.tail1234.ts.net" {
		t.Errorf("the certificate is for %s", name)
	}
}
