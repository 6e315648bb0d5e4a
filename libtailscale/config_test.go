package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"

	"tailscale.com/ipn"
)

// aSecret is what no error may hold.
const aSecret = "a-secret-without-a-prefix"

func TestAConfigurationThatCannotBeMeantIsRefused(t *testing.T) {
	for name, test := range map[string]struct{ text, says string }{
		"an empty text":                  {``, "not a JSON object"},
		"no JSON":                        {`hostname=h ` + aSecret, "not a JSON object"},
		"JSON that is cut off":           {`{"hostname":"h","state_dir":"/s","auth_key":"` + aSecret, "not a JSON object"},
		"a string":                       {`"` + aSecret + `"`, "not a JSON object"},
		"a list":                         {`["` + aSecret + `"]`, "not a JSON object"},
		"null":                           {`null`, "hostname is missing"},
		"something after the object":     {`{"hostname":"h","state_dir":"/s"} {"auth_key":"` + aSecret + `"}`, "not a JSON object"},
		"an unknown member":              {`{"hostname":"h","state_dir":"/s","authkey":"` + aSecret + `"}`, `unknown field "authkey"`},
		"a number for a text":            {`{"hostname":"h","state_dir":"/s","auth_key":12345678901}`, `"auth_key" has the wrong type`},
		"a text for a switch":            {`{"hostname":"h","state_dir":"/s","ephemeral":"` + aSecret + `"}`, `"ephemeral" has the wrong type`},
		"a text for a list":              {`{"hostname":"h","state_dir":"/s","redact":"` + aSecret + `"}`, `"redact" has the wrong type`},
		"a list of numbers":              {`{"hostname":"h","state_dir":"/s","tags":[17]}`, `"tags" has the wrong type`},
		"no hostname":                    {`{"state_dir":"/s","auth_key":"` + aSecret + `"}`, "hostname is missing"},
		"no state directory":             {`{"hostname":"h","auth_key":"` + aSecret + `"}`, "state_dir is missing"},
		"a client secret without tags":   {`{"hostname":"h","state_dir":"/s","client_secret":"` + aSecret + `"}`, "needs tags"},
		"the same, given as an auth key": {`{"hostname":"h","state_dir":"/s","auth_key":"tskey-client-` + aSecret + `"}`, "needs tags"},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := newNode(test.text)
			wantFailure(t, err, codeInvalid, test.says)
			if n != nil {
				t.Error("there is a node all the same")
			}
			for _, value := range []string{aSecret, "12345678901", "17"} {
				if strings.Contains(err.Error(), value) {
					t.Errorf("the text holds the value %q: %v", value, err)
				}
			}
		})
	}
}

func TestAnAuthKeyWinsOverAClientSecret(t *testing.T) {
	c, err := parseConfig(`{"hostname":"h","state_dir":"/s","auth_key":"k","client_secret":"` + aSecret + `"}`)
	if err != nil {
		t.Fatal(err)
	}
	if secretOf(c.AuthKey, c.ClientSecret) != "" {
		t.Error("the client secret would be exchanged although there is a key")
	}
}

func TestTheFirstNodeRemovesTsnetsVariablesFromTheEnvironment(t *testing.T) {
	made(t, configFor(t, "env"))
	for _, name := range []string{
		"TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_SECRET", "TS_CLIENT_ID", "TS_ID_TOKEN", "TS_AUDIENCE", "TS_CONTROL_URL", "TSNET_FORCE_LOGIN",
	} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s is still %q", name, v)
		}
	}
}

func TestANodeWithoutAKeyAsksForALoginAndTakesNoneFromTheEnvironment(t *testing.T) {
	for name, key := range map[string]string{"none": "", "a placeholder": "${TS_AUTHKEY}"} {
		t.Run(name, func(t *testing.T) {
			hostname := "keyless-" + strings.ReplaceAll(name, " ", "-")
			c := configFor(t, hostname)
			c.AuthKey = key
			n := made(t, c)
			if err := startWithin(n, waitLimit); err != nil {
				t.Fatal(err)
			}
			if err := awaitState(n, ipn.NeedsLogin); err != nil {
				t.Fatal(err)
			}
			if d := onTailnet(t).device(t, hostname); d != nil {
				t.Errorf("it has joined: %+v", d)
			}
		})
	}
}

func TestTheHeapIsHeldSmallOnceTheLastStartHasEnded(t *testing.T) {
	ended := func() error { return nil }
	err := uncollected(func() error {
		if err := uncollected(ended); err != nil {
			return err
		}
		if got := gcPercent(); got != math.MaxUint64 {
			t.Errorf("during a start GOGC is %d and not off", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := gcPercent(); got != heapPercent {
		t.Errorf("after it GOGC is %d and not %d", got, heapPercent)
	}
}

func gcPercent() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func TestNothingIsSentOrWrittenBeforeTheStart(t *testing.T) {
	c := configFor(t, "unstarted")
	made(t, c)
	if files, _ := filepath.Glob(filepath.Join(c.StateDir, "*")); len(files) != 0 {
		t.Errorf("the state directory holds %v", files)
	}
}
