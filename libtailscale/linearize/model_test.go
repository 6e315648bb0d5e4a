package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// judged runs the program over operations.
func judged(t *testing.T, ops ...operation) verdict {
	t.Helper()
	var in, out strings.Builder
	for _, op := range ops {
		if err := json.NewEncoder(&in).Encode(op); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(strings.NewReader(in.String()), &out); err != nil {
		t.Fatal(err)
	}
	var v verdict
	if err := json.Unmarshal([]byte(out.String()), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func did(what, member, outcome string, begin, end int64) operation {
	return operation{Task: "task-1", What: what, Member: member, Outcome: outcome, Call: begin, Return: end}
}

func read(status, owner string, begin, end int64) operation {
	op := did("read", "ann", "done", begin, end)
	op.Status, op.Owner = status, owner
	return op
}

func byLead(op operation) operation {
	op.Lead = true
	return op
}

func TestHistoriesThatOneListCanHave(t *testing.T) {
	for name, ops := range map[string][]operation{
		"nothing": {},
		"a claim, then a completion": {
			did("claim", "ann", "done", 1, 2), did("complete", "ann", "done", 3, 4), read("completed", "", 5, 6),
		},
		"two claims at once, of which one loses": {did("claim", "ann", "done", 1, 4), did("claim", "ben", "refused", 2, 3)},
		"a claim once more by its owner":         {did("claim", "ann", "done", 1, 2), did("claim", "ann", "done", 3, 4)},
		"a lost claim, which another takes": {
			did("claim", "ann", "done", 1, 2), did("lapse", "ann", "done", 3, 9), did("claim", "ben", "done", 5, 6),
			did("complete", "ann", "refused", 7, 8),
		},
		"a claim without an answer that was carried out": {
			did("claim", "ann", "unknown", 1, math.MaxInt64), did("claim", "ben", "refused", 2, 3),
		},
		"a claim without an answer that was not": {
			did("claim", "ann", "unknown", 1, math.MaxInt64), did("claim", "ben", "done", 2, 3),
		},
		"what the lead completes for another": {
			did("claim", "ben", "done", 1, 2), byLead(did("complete", "ann", "done", 3, 4)),
			did("complete", "ben", "refused", 5, 6),
		},
	} {
		if v := judged(t, ops...); !v.Linearizable {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestHistoriesThatNoListCanHave(t *testing.T) {
	for name, ops := range map[string][]operation{
		"a claim that two win":           {did("claim", "ann", "done", 1, 4), did("claim", "ben", "done", 2, 3)},
		"a refusal without an owner":     {did("claim", "ben", "refused", 1, 2), did("claim", "ann", "done", 3, 4)},
		"a claim of what is completed":   {byLead(did("complete", "ann", "done", 1, 2)), did("claim", "ben", "done", 3, 4)},
		"a completion by somebody else":  {did("claim", "ann", "done", 1, 2), did("complete", "ben", "done", 3, 4)},
		"a completion that is forgotten": {byLead(did("complete", "ann", "done", 1, 2)), read("pending", "", 3, 4)},
		"a claim lost before it was made": {
			did("lapse", "ann", "done", 1, 2), did("claim", "ann", "done", 3, 4), did("claim", "ben", "done", 5, 6),
		},
	} {
		v := judged(t, ops...)
		if v.Linearizable || len(v.Failed) != 1 || v.Failed[0] != "task-1" {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestEachTaskIsJudgedByItself(t *testing.T) {
	other := did("claim", "ben", "done", 1, 2)
	other.Task = "task-2"
	v := judged(t, did("claim", "ann", "done", 1, 2), did("claim", "ben", "done", 3, 4), other)
	if v.Linearizable || v.Tasks != 2 || v.Operations != 3 || len(v.Failed) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestWhatIsNoHistoryIsAnError(t *testing.T) {
	for _, text := range []string{"{", "[]", `{"task":"t","what":"steal","outcome":"done"}`, `{"task":"t","what":"claim"}`} {
		if err := run(strings.NewReader(text), &strings.Builder{}); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
