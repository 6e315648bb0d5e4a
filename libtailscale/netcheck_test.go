package main

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"tailscale.com/net/netcheck"
	"tailscale.com/tailcfg"
)

func netcheckWithin(n *node, limit time.Duration) (*netReport, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return n.netcheck(ctx)
}

func TestANetcheckMeasuresEveryRegionOfTheTailnet(t *testing.T) {
	report, err := netcheckWithin(probe(t), waitLimit)
	if err != nil {
		t.Fatal(err)
	}
	if !report.UDP || !report.IPv4 || report.MappedIPv4 == "" || !report.MappedIsOwn {
		t.Errorf("on loopback there is UDP over IPv4 and no NAT: %+v", report)
	}
	if len(report.Regions) != 3 || report.Preferred == 0 {
		t.Fatalf("it has three regions, one of them preferred: %+v", report)
	}
	for i, r := range report.Regions {
		if r.Name == "" || r.Code == "" || r.LatencyMS == nil || *r.LatencyMS <= 0 || *r.LatencyMS > 1000 {
			t.Errorf("region %d: %+v", r.ID, r)
		}
		if i > 0 && *r.LatencyMS < *report.Regions[i-1].LatencyMS {
			t.Errorf("the quickest is not first: %+v", report.Regions)
		}
	}
}

func TestANetcheckLeavesNothingBehind(t *testing.T) {
	n := probe(t)
	if _, err := netcheckWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	leavesNothing(t, func() {
		for range 3 {
			if _, err := netcheckWithin(n, waitLimit); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestANetcheckEndsInTimeAndWithTheNode(t *testing.T) {
	n := joined(t, configFor(t, "checker"))
	_, err := netcheckWithin(n, time.Nanosecond)
	wantFailure(t, err, codeTimeout, "did not end in time")
	if err := closeWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	_, err = netcheckWithin(n, waitLimit)
	wantFailure(t, err, codeClosed, "closed")
}

func TestARegionWithoutAnAnswerComesLastAndHasNoLatency(t *testing.T) {
	regions := &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{}}
	for id, code := range map[int]string{1: "far", 2: "silent", 3: "near", 4: "mute"} {
		regions.Regions[id] = &tailcfg.DERPRegion{RegionID: id, RegionCode: code}
	}
	measured := map[int]time.Duration{1: 90 * time.Millisecond, 3: 1500 * time.Microsecond}
	report := netReportOf(&netcheck.Report{RegionLatency: measured}, regions)
	text, err := json.Marshal(report.Regions)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"id":3,"code":"near","name":"","latency_ms":1.5},{"id":1,"code":"far","name":"","latency_ms":90},` +
		`{"id":2,"code":"silent","name":"","latency_ms":null},{"id":4,"code":"mute","name":"","latency_ms":null}]`
	if string(text) != want {
		t.Error(string(text))
	}
	if report.MappingVaries != nil || report.UPnP != nil || report.CaptivePortal != nil || report.MappedIPv4 != "" {
		t.Errorf("what was not found out is told as if it were: %+v", report)
	}
}
