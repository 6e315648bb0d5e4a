package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

func knownWithin(n *node, limit time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return n.known(ctx)
}

func TestControlSaysWhetherItStillHasTheDevice(t *testing.T) {
	w := onTailnet(t)
	n := joined(t, configFor(t, "known"))
	if has, err := knownWithin(n, waitLimit); err != nil || !has {
		t.Errorf("it has joined: %v, %v", has, err)
	}
	w.admin(t, "DELETE", "/nodes/known", nil, nil)
	if has, err := knownWithin(n, waitLimit); err != nil || has {
		t.Errorf("it is deleted: %v, %v", has, err)
	}
}

func TestAControlThatDoesNotAnswerHasNotDeletedTheDevice(t *testing.T) {
	w := onOwnTailnet(t)
	c := configFor(t, "out-of-touch")
	c.ControlURL, c.AuthKey = w.ControlURL, w.AuthKey
	c.Ephemeral = false // or the close would tell control, and wait
	n := joined(t, c)
	w.faults(t, map[string]any{"hang": true})
	began := time.Now()
	if has, err := knownWithin(n, 200*time.Millisecond); err == nil {
		t.Errorf("control hangs: %v", has)
	}
	if took := time.Since(began); took > 200*time.Millisecond+soon {
		t.Errorf("it took %v", took)
	}
	w.admin(t, "PUT", "/faults", map[string]any{"outage": true}, nil)
	if has, err := knownWithin(n, soon); err == nil {
		t.Errorf("control is away: %v", has)
	}
	asking := inBackground(func() error { _, err := knownWithin(n, waitLimit); return err })
	if err := closeWithin(n, soon); err != nil {
		t.Fatal(err)
	}
	if err := outcome(t, "the question ends with the node", soon, asking); err == nil {
		t.Error("it was answered")
	}
}

// Only 404 says that there is no such device: it is what Tailscale's own
// control and Headscale answer then. All else may pass.
func TestNoOtherAnswerOfControlIsTakenForADeletion(t *testing.T) {
	w := onOwnTailnet(t)
	c := configFor(t, "refused")
	c.ControlURL, c.AuthKey = w.ControlURL, w.AuthKey
	n := joined(t, c)
	for _, status := range []int{400, 401, 403, 405, 408, 429, 500, 501, 502, 503} {
		w.faults(t, map[string]any{"map_status": status})
		has, err := knownWithin(n, waitLimit)
		if err == nil || codeOf(err) != codeUnreachable || !strings.Contains(err.Error(), fmt.Sprint("HTTP ", status)) {
			t.Errorf("HTTP %d: %v, %v", status, has, err)
		}
	}
}

// Headscale takes over what a streaming request says, though that is meant to
// be read-only: with an empty disco key the device could not be reached any more.
func TestTheQuestionChangesNothingOfWhatControlKnowsAboutTheDevice(t *testing.T) {
	w := onOwnTailnet(t)
	c := configFor(t, "asking")
	c.ControlURL, c.AuthKey = w.ControlURL, w.AuthKey
	n := joined(t, c)
	w.admin(t, "PUT", "/settings", map[string]any{"believe_streams": true}, nil)
	if has, err := knownWithin(n, waitLimit); err != nil || !has {
		t.Fatalf("%v, %v", has, err)
	}
	var overwritten struct{ Events []struct{ Detail string } }
	w.admin(t, "GET", "/events?kind=overwritten", nil, &overwritten)
	if len(overwritten.Events) > 0 {
		t.Error(overwritten.Events)
	}
}
