package main

import (
	"testing"
	"time"

	"tailscale.com/tailcfg"
)

// ephemeralNode adds a node that is removed when it has been away for 3 s.
func ephemeralNode(t *testing.T, tn *tailnet) *node {
	t.Helper()
	tn.mu.Lock()
	defer tn.mu.Unlock()
	n, err := tn.addNodeLocked(&tailcfg.Hostinfo{Hostname: "device"})
	if err != nil {
		t.Fatal(err)
	}
	n.user, n.ephemeral = tn.userLocked("alice@example.com"), true
	return n
}

func TestANodeWhoseStreamEndsLateInAnOutageIsNotTakenForOneThatLeft(t *testing.T) {
	tn := newTailnet("example.com", "tail1234.ts.net")
	n := ephemeralNode(t, tn)
	s := tn.openStream(n)
	tn.freeze(true, true)
	tn.freeze(false, false)
	tn.closeStream(s) // its handler notices only now
	tn.sweep(time.Now().Add(returnGrace / 2))
	if n.removed {
		t.Error("the outage deleted it")
	}
	tn.sweep(time.Now().Add(2 * returnGrace))
	if !n.removed {
		t.Error("it never came back and is still there")
	}
}

func TestANodeThatLeavesAfterAnOutageHasTheUsualTimeOut(t *testing.T) {
	tn := newTailnet("example.com", "tail1234.ts.net")
	n := ephemeralNode(t, tn)
	tn.freeze(true, true)
	tn.freeze(false, false)
	tn.closeStream(tn.openStream(n))
	tn.sweep(time.Now().Add(tn.settings.EphemeralTimeout + time.Second))
	if !n.removed {
		t.Error("it is still there")
	}
}

func TestANodeThatLeavesAfterAHangHasTheUsualTimeOut(t *testing.T) {
	tn := newTailnet("example.com", "tail1234.ts.net")
	n := ephemeralNode(t, tn)
	s := tn.openStream(n) // lives on while control hangs
	tn.freeze(true, false)
	tn.freeze(false, false)
	tn.closeStream(s)
	tn.sweep(time.Now().Add(tn.settings.EphemeralTimeout + time.Second))
	if !n.removed {
		t.Error("it is still there")
	}
}

func TestNobodyIsRemovedWhileControlCannotBeReached(t *testing.T) {
	tn := newTailnet("example.com", "tail1234.ts.net")
	n := ephemeralNode(t, tn)
	tn.freeze(true, true)
	tn.sweep(time.Now().Add(time.Hour))
	if n.removed {
		t.Error("it is gone")
	}
}
