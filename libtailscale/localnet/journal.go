package main

import (
	"sync"
	"time"

	"tailscale.com/tailcfg"
)

// journalLimit bounds the memory of a long-lived control server. The oldest
// events go first; no test looks back that far.
const journalLimit = 50_000

// event is one thing that happened in control, as GET /events shows it.
type event struct {
	Seq      int64          `json:"seq"`     // strictly increasing from 1
	TimeNS   int64          `json:"time_ns"` // wall clock, Unix nanoseconds
	Kind     string         `json:"kind"`
	Hostname string         `json:"hostname,omitempty"` // as the node asked for it
	Name     string         `json:"name,omitempty"`     // FQDN without the dot
	NodeID   tailcfg.NodeID `json:"node_id,omitempty"`
	Detail   string         `json:"detail,omitempty"`
}

// journal keeps the events in order and lets readers wait for new ones. It has
// a lock of its own, which is a leaf: it may be taken with any other held.
type journal struct {
	mu     sync.Mutex
	events []event
	last   int64
	grown  chan struct{} // closed and replaced when an event is added
}

func newJournal() *journal {
	return &journal{grown: make(chan struct{})}
}

// add records an event about n, which may be nil.
func (j *journal) add(kind string, n *node, detail string) {
	e := event{Kind: kind, Detail: detail, TimeNS: time.Now().UnixNano()}
	if n != nil {
		e.Hostname, e.Name, e.NodeID = n.hostname(), n.fqdn, n.id
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	e.Seq = j.last
	if len(j.events) == journalLimit {
		j.events = append(j.events[:0:0], j.events[journalLimit/2:]...)
	}
	j.events = append(j.events, e)
	close(j.grown)
	j.grown = make(chan struct{})
}

// since returns the events after a sequence number that match, the newest
// sequence number, and a channel that closes when another event is added.
func (j *journal) since(after int64, match func(event) bool) (found []event, last int64, grown <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if e.Seq > after && match(e) {
			found = append(found, e)
		}
	}
	return found, j.last, j.grown
}
