package main

import (
	"context"
	"errors"
	"testing"
)

// What needs no C value of its own; the rest of the calls is tested from the
// language that they are for.

func TestEveryCallOnANodeThatIsNotThereSaysClosed(t *testing.T) {
	const nobody = 1 << 30
	for name, result := range map[string]int{
		"start":    int(tailscale_start(nobody, 1000, nil)),
		"loopback": int(tailscale_loopback(nobody, nil, nil, nil, nil)),
		"dial":     int(tailscale_dial(nobody, nil, nil, 1000, nil, nil)),
		"listen":   int(tailscale_listen(nobody, nil, nil, nil, nil)),
		"login":    int(tailscale_login(nobody, nil, nil, 1000, nil)),
		"logout":   int(tailscale_logout(nobody, 1000, nil)),
		"whois":    int(tailscale_whois(nobody, nil, 1000, nil, nil)),
		"netcheck": int(tailscale_netcheck(nobody, 1000, nil, nil)),
		"close":    int(tailscale_close(nobody, 1000, nil)),
	} {
		if result != int(codeClosed) {
			t.Errorf("%s: %d", name, result)
		}
	}
}

func TestATimeoutThatIsNotPositiveIsRefusedBeforeAnythingIsDone(t *testing.T) {
	for _, ms := range []int{0, -1, -1 << 31} {
		var err error
		switch ms {
		case 0:
			err = within(0, func(context.Context) error { t.Error("it ran"); return nil })
		case -1:
			err = within(-1, func(context.Context) error { t.Error("it ran"); return nil })
		default:
			err = within(-1<<31, func(context.Context) error { t.Error("it ran"); return nil })
		}
		wantFailure(t, err, codeInvalid, "timeout_ms must be positive")
	}
}

func TestATimeoutIsInMilliseconds(t *testing.T) {
	err := within(20, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestAPanicInACallBecomesAnInternalErrorAndEndsNothing(t *testing.T) {
	if got := report(nil, func() error { panic("on purpose") }); int(got) != int(codeInternal) {
		t.Errorf("the code is %d", int(got))
	}
}

func TestNoConfigurationAtAllIsRefused(t *testing.T) {
	if got := tailscale_new(nil, nil, nil); int(got) != int(codeInvalid) {
		t.Errorf("the code is %d", int(got))
	}
}

func TestNullMayBeFreed(t *testing.T) {
	tailscale_free(nil)
}
