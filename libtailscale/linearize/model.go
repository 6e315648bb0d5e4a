package main

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// operation is one command that a member gave, and what it was told. Call and
// Return are nanoseconds of one clock.
type operation struct {
	Task    string `json:"task"`
	What    string `json:"what"` // claim, complete, release, lapse, read
	Member  string `json:"member"`
	Lead    bool   `json:"lead"`    // the member leads the team, and may complete and release what is not its own
	Outcome string `json:"outcome"` // done; refused; unknown: it was or will be carried out at any time after Call, or never
	Owner   string `json:"owner"`   // of a read: "" for nobody
	Status  string `json:"status"`  // of a read: pending, in_progress, completed
	Call    int64  `json:"call"`
	Return  int64  `json:"return"`
}

func (op *operation) validate() error {
	switch op.What {
	case "claim", "complete", "release", "lapse", "read":
	default:
		return fmt.Errorf("%q is none of claim, complete, release, lapse, read", op.What)
	}
	switch op.Outcome {
	case "done", "refused", "unknown":
	default:
		return fmt.Errorf("%q is none of done, refused, unknown", op.Outcome)
	}
	if op.Task == "" || op.Return < op.Call {
		return fmt.Errorf("it has no task, or ends before it begins: %+v", *op)
	}
	return nil
}

// task is one task as it is now: it has one owner at most.
type task struct {
	owner     string
	completed bool
}

// model is a task that nobody has at first. An operation whose outcome is not
// known is legal in any state: where the rules say no it changes nothing.
var model = porcupine.Model{
	Init: func() any { return task{} },
	Step: func(state, input, _ any) (bool, any) {
		before, op := state.(task), input.(operation)
		if op.What == "read" {
			return op.Status == before.status() && op.Owner == before.owner, before
		}
		after, allowed := before.after(op)
		switch op.Outcome {
		case "done":
			return allowed, after
		case "refused":
			return !allowed, before
		}
		return true, after
	},
	Equal: func(a, b any) bool { return a == b },
}

// after is the task once op is carried out, and whether the rules allow it; if
// they do not, the task is as before.
func (t task) after(op operation) (task, bool) {
	mine := t.owner == op.Member
	switch {
	case t.completed:
	case op.What == "claim" && (t.owner == "" || mine):
		return task{owner: op.Member}, true
	case op.What == "complete" && (mine || op.Lead):
		return task{completed: true}, true
	case op.What == "release" && t.owner != "" && (mine || op.Lead), op.What == "lapse" && mine:
		return task{}, true
	}
	return t, false
}

func (t task) status() string {
	switch {
	case t.completed:
		return "completed"
	case t.owner != "":
		return "in_progress"
	}
	return "pending"
}
