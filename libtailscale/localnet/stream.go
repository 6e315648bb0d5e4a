package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/zstdframe"
)

const (
	// keepAliveEvery is well below the 120 s after which a client gives up.
	keepAliveEvery = 30 * time.Second
	// settle is how long a stream waits after a change for further ones. What
	// happens together travels together, and nobody notices 2 ms.
	settle = 2 * time.Millisecond
	// settlePerByte makes it grow with what the last response had to say: with
	// 5,000 peers 4 MB, after which 200 ms without another are a mercy.
	settlePerByte = 50 * time.Nanosecond
	settleLimit   = 250 * time.Millisecond
	// introductionLimit bounds how long a node that connects waits for the
	// others to have heard of it.
	introductionLimit = 100 * time.Millisecond
)

// stream is one long-polled map request: control's only way to tell a node
// something. At most one of a node is open.
type stream struct {
	node   *node
	opened time.Time
	wake   chan struct{}
	over   chan struct{} // closed when the node is removed or opens another stream
	sent   sentMap       // used by the request's goroutine alone
	told   uint64        // the tailnet's revision that was written last; 0: none yet
}

// poke makes the stream look for changes. The tailnet's lock is held.
func (s *stream) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// end ends the stream. The tailnet's lock is held.
func (s *stream) end() {
	select {
	case <-s.over:
	default:
		close(s.over)
	}
}

// serveMap answers POST /machine/map: an update of what control knows about the
// node, or the stream of what the node should know.
func (c *control) serveMap(w http.ResponseWriter, r *http.Request, machine key.MachinePublic) {
	var req tailcfg.MapRequest
	if !readJSON(w, r, &req) {
		return
	}
	n, status, problem := c.net.mapNode(machine, req.NodeKey)
	if problem != "" {
		c.faults.delay(r.Context(), r.URL.Path)
		http.Error(w, problem, status)
		return
	}
	if set, _ := c.faults.get(); set.MapStatus != 0 {
		http.Error(w, http.StatusText(set.MapStatus), set.MapStatus)
		return
	}
	// A streaming request of a modern client is read-only (see
	// tailcfg.MapRequest.Stream); its zero fields must not overwrite anything.
	if !(req.Stream && req.Version >= 68) {
		c.net.applyMapRequest(n, &req)
	} else if req.Stream {
		c.net.believe(n, &req)
	}
	if !req.Stream {
		c.faults.delay(r.Context(), r.URL.Path)
		w.WriteHeader(http.StatusOK)
		if !req.OmitPeers {
			if msg, _ := c.net.nextMap(n, &sentMap{}); msg != nil {
				writeFrame(w, req.Compress, msg)
			}
		}
		return
	}
	s := c.net.openStream(n)
	defer c.net.closeStream(s)
	c.faults.delay(r.Context(), r.URL.Path)
	c.net.introduce(r.Context(), n)
	w.WriteHeader(http.StatusOK)
	c.feed(r.Context(), s, w, req.Compress)
}

// mapNode finds the node of a map request. A node that was deleted gets what
// the real control server answers to it: 404 "node not found".
func (t *tailnet) mapNode(machine key.MachinePublic, nk key.NodePublic) (_ *node, status int, problem string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[nk]
	switch {
	case n == nil:
		return nil, http.StatusNotFound, "node not found"
	case n.machine != machine:
		return nil, http.StatusBadRequest, "node key does not belong to this machine"
	}
	return n, 0, ""
}

// applyMapRequest takes over what a node says about itself.
func (t *tailnet) applyMapRequest(n *node, req *tailcfg.MapRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.peerWireLocked(n)
	n.endpoints = nil
	for _, ep := range req.Endpoints {
		// Clients do not know what to do with these.
		if ep.Addr().Zone() == "" && !ep.Addr().IsLinkLocalUnicast() {
			n.endpoints = append(n.endpoints, ep)
		}
	}
	n.disco, n.capVersion = req.DiscoKey, req.Version
	t.applyHostinfoLocked(n, req.Hostinfo)
	n.wire = nil
	if !bytes.Equal(was, t.peerWireLocked(n)) {
		t.changedLocked(n)
		t.progressLocked()
		return
	}
	// Nothing that concerns others; the node itself may see its update.
	for s := range t.streams {
		if s.node == n {
			s.poke()
		}
	}
}

// believe takes over what Headscale does from a request that is meant to be
// read-only (hscontrol/state, UpdateNodeFromMapRequest, since 0.27): the disco
// key and the Hostinfo, also empty ones. It is a setting; what was lost by it
// stands in the journal as "overwritten".
func (t *tailnet) believe(n *node, req *tailcfg.MapRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.settings.BelieveStreams {
		return
	}
	said := tailcfg.Hostinfo{}
	if req.Hostinfo != nil {
		said = *req.Hostinfo
	}
	if said.Hostname == "" { // not this one
		said.Hostname = n.hostinfo.Hostname
	}
	if n.disco != req.DiscoKey || n.hostinfo.OS != said.OS {
		t.journal.add("overwritten", n, fmt.Sprintf("disco=%v os=%q", req.DiscoKey.ShortString(), said.OS))
	}
	n.disco = req.DiscoKey
	t.applyHostinfoLocked(n, &said)
	t.changedLocked(n)
}

// openStream makes a stream for n, which is online from now on, and ends the
// one that it had.
func (t *tailnet) openStream(n *node) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.streams {
		if s.node == n {
			s.end()
		}
	}
	s := &stream{node: n, opened: time.Now(), wake: make(chan struct{}, 1), over: make(chan struct{})}
	t.streams[s] = struct{}{}
	n.streams++
	if n.streams == 1 {
		t.journal.add("online", n, "")
		t.changedLocked(n)
	}
	return s
}

// closeStream forgets a stream. A node without any is offline.
func (t *tailnet) closeStream(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.streams, s)
	s.node.streams--
	if s.node.streams == 0 && !s.node.removed {
		s.node.offlineSince = t.endedLocked(s)
		t.journal.add("offline", s.node, "")
		t.changedLocked(s.node)
		t.rearmReaper()
	}
}

// introduce waits until the peers that are connected have been told of n,
// before n is told of them. Otherwise n's first handshake may reach a peer that
// takes it for a stranger's, and WireGuard tries again only after 5 s.
func (t *tailnet) introduce(ctx context.Context, n *node) {
	limit := time.NewTimer(introductionLimit)
	defer limit.Stop()
	for {
		t.mu.Lock()
		known, progress := t.introducedLocked(n), t.progress
		t.mu.Unlock()
		if known {
			return
		}
		select {
		case <-progress:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// introducedLocked reports whether n has its disco key, which comes in a
// request of its own, and every other stream that is being fed has told of it.
func (t *tailnet) introducedLocked(n *node) bool {
	if n.disco.IsZero() {
		return false
	}
	for s := range t.streams {
		if s.node != n && s.told != 0 && s.told < n.revision {
			return false
		}
	}
	return true
}

// noteTold records that a stream has written everything up to a revision.
func (t *tailnet) noteTold(s *stream, revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.told = revision
	t.progressLocked()
}

// progressLocked wakes those who wait for an introduction.
func (t *tailnet) progressLocked() {
	close(t.progress)
	t.progress = make(chan struct{})
}

// feed writes map responses until the request or the stream ends.
func (c *control) feed(ctx context.Context, s *stream, w http.ResponseWriter, compress string) {
	keepAlive := time.NewTicker(keepAliveEvery)
	defer keepAlive.Stop()
	for {
		if !c.faults.admit(ctx, "/machine/map") {
			return
		}
		msg, revision := c.net.nextMap(s.node, &s.sent)
		if msg != nil {
			if writeFrame(w, compress, msg) != nil {
				return
			}
			keepAlive.Reset(keepAliveEvery)
		}
		c.net.noteTold(s, revision)
		pause := min(settle+time.Duration(len(msg))*settlePerByte, settleLimit)
		select {
		case <-ctx.Done():
			return
		case <-s.over:
			return
		case <-keepAlive.C:
			if !c.faults.admit(ctx, "/machine/map") || writeFrame(w, compress, []byte(`{"KeepAlive":true}`)) != nil {
				return
			}
		case <-s.wake:
			time.Sleep(pause)
		}
	}
}

// writeFrame writes one message of a map stream: its length in 4 bytes, little
// endian, then the JSON, compressed if asked for.
func writeFrame(w http.ResponseWriter, compress string, msg []byte) error {
	if compress == "zstd" {
		msg = zstdframe.AppendEncode(nil, msg, zstdframe.FastestCompression)
	}
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(msg)))
	if _, err := w.Write(append(frame, msg...)); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

// bodyLimit bounds what a client may send in one request.
const bodyLimit = 4 << 20

func readBody(r *http.Request) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r.Body, bodyLimit))
}
