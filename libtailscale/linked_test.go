package main

import (
	"slices"
	"testing"

	"tailscale.com/feature"
)

// Control may ask a node for what its features answer (c2n), and a feature that
// is not linked answers nothing. None of these is one that changes the host,
// starts a program on it, takes a file or reads its hardware.
func TestNothingIsLinkedByWhichControlOrAPeerCouldActOnThisHost(t *testing.T) {
	for _, name := range []string{
		"appconnectors", "clientupdate", "drive", "posture", "portlist", "relayserver", "remoteconfig", "ssh",
		"taildrop", "tap", "wakeonlan",
	} {
		if feature.IsRegistered(name) {
			t.Errorf("%s is linked", name)
		}
	}
	known := []string{"acme", "c2n", "netlog", "oauthkey", "portmapper", "useproxy"}
	for name := range feature.Registered() {
		if !slices.Contains(known, name) {
			t.Errorf("nobody has looked at what %s lets control and peers do", name)
		}
	}
}
