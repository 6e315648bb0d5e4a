package main

import (
	"testing"
	"time"
)

func TestNoPacketPassesOverACutUntilItIsMendedAndBothStillSeeEachOther(t *testing.T) {
	w := newWorld(t)
	web, caller, other := w.join("web"), w.join("caller"), w.join("other")
	w.serveHello(web)
	w.mustFetch(caller, "http://web/")
	w.mustFetch(other, "http://web/")
	w.admin("PUT", "/cuts", map[string]any{"cuts": []cut{{"web", "caller"}}}, nil)
	w.eventually("the caller gets nothing", func() bool {
		_, err := w.fetch(caller, "http://web/", 500*time.Millisecond)
		return err != nil
	})
	w.mustFetch(other, "http://web/")
	if p := w.peer(caller, "web"); p == nil || !p.Online {
		t.Errorf("the caller sees %+v", p)
	}
	w.admin("PUT", "/cuts", nil, nil)
	w.eventually("the caller gets it again", func() bool {
		_, err := w.fetch(caller, "http://web/", time.Second)
		return err == nil
	})
}
