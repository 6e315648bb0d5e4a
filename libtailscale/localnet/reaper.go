package main

import (
	"context"
	"time"
)

// reap removes ephemeral nodes that have been away too long and expires node
// keys whose time has come, until ctx ends.
func (t *tailnet) reap(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.rearm:
		case <-timer.C:
		}
		timer.Reset(t.sweep(time.Now()))
	}
}

// sweep does what is due and returns how long until something is due again.
func (t *tailnet) sweep(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	const idle = time.Hour
	next := idle
	var gone []*node
	for _, n := range t.nodes {
		if !n.expired && !n.keyExpiry.IsZero() {
			if left := n.keyExpiry.Sub(now); left > 0 {
				next = min(next, left)
			} else {
				t.expireLocked(n, "time")
			}
		}
		if !n.ephemeral || n.fake || n.online() || n.answering > 0 || t.frozen {
			continue
		}
		if left := t.removalLocked(n).Sub(now); left > 0 {
			next = min(next, left)
		} else {
			gone = append(gone, n)
		}
	}
	for _, n := range gone {
		t.removeLocked(n, "ephemeral and away")
	}
	return next
}

// returnGrace is how long a node that lost control in an outage has to come
// back. Over plain HTTP a client that finds the port closed waits 10 s before
// it tries again (control/controlhttp: it waits for a port 443 it does not dial),
// and now and then that happens twice.
const returnGrace = 60 * time.Second

// removalLocked is when a node that is away is to be removed.
func (t *tailnet) removalLocked(n *node) time.Time {
	if n.offlineSince.Before(t.thawed) {
		return t.thawed.Add(returnGrace)
	}
	return n.offlineSince.Add(t.settings.EphemeralTimeout)
}

// freeze stops the removal of nodes that are away, for as long as control
// cannot be reached: a server that is down deletes nobody. It also notes when a
// port that was shut is about to open again.
func (t *tailnet) freeze(unreachable, shut bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.frozen && !unreachable {
		t.thawed = now
	}
	if t.shut && !shut {
		t.reopened = now
	}
	t.frozen, t.shut = unreachable, shut
	t.rearmReaper()
}

// endedLocked is when a stream that closes now came to its end. One that was
// opened before the port was shut ended with that, however late its handler
// notices: its node is a victim of the outage and has not left.
func (t *tailnet) endedLocked(s *stream) time.Time {
	if s.opened.Before(t.reopened) {
		return t.reopened.Add(-time.Nanosecond)
	}
	return time.Now()
}
