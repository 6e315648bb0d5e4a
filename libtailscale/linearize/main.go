// Program linearize reads what several agents did to a team's tasks, and says
// whether one list of tasks that carries out one command at a time could have
// answered like that. The checker is Porcupine.
//
// It is for tests alone, and never part of the wheel.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkLimit bounds the search, which is exponential at worst. A history whose
// members ask one thing at a time takes milliseconds.
const checkLimit = 30 * time.Second

func main() {
	err := run(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "linearize:", err)
		os.Exit(1)
	}
}

// run reads operations, one JSON object after the other, and writes a verdict.
func run(r io.Reader, w io.Writer) error {
	var history []porcupine.Operation
	for dec := json.NewDecoder(r); ; {
		var op operation
		switch err := dec.Decode(&op); {
		case errors.Is(err, io.EOF):
			return json.NewEncoder(w).Encode(check(history))
		case err != nil:
			return fmt.Errorf("operation %d: %w", len(history)+1, err)
		}
		if err := op.validate(); err != nil {
			return fmt.Errorf("operation %d: %w", len(history)+1, err)
		}
		history = append(history, porcupine.Operation{Input: op, Call: op.Call, Return: op.Return})
	}
}

// verdict is what the program answers. Failed names the tasks whose histories
// are not linearizable, or could not be looked through in time.
type verdict struct {
	Linearizable bool     `json:"linearizable"`
	Operations   int      `json:"operations"`
	Tasks        int      `json:"tasks"`
	Failed       []string `json:"failed"`
}

// check looks at each task by itself: no operation is about two of them.
func check(history []porcupine.Operation) verdict {
	tasks := byTask(history)
	v := verdict{Operations: len(history), Tasks: len(tasks), Failed: []string{}}
	for _, one := range tasks {
		if porcupine.CheckOperationsTimeout(model, one, checkLimit) != porcupine.Ok {
			v.Failed = append(v.Failed, one[0].Input.(operation).Task)
		}
	}
	v.Linearizable = len(v.Failed) == 0
	return v
}

// byTask parts a history by task, in the order in which they come up.
func byTask(history []porcupine.Operation) [][]porcupine.Operation {
	var parts [][]porcupine.Operation
	place := map[string]int{}
	for _, op := range history {
		name := op.Input.(operation).Task
		i, known := place[name]
		if !known {
			i = len(parts)
			place[name], parts = i, append(parts, nil)
		}
		parts[i] = append(parts[i], op)
	}
	return parts
}
