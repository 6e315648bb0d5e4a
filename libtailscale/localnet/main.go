// Command localnet makes a whole tailnet on loopback: a control server, three
// DERP relays with STUN, and nodes to talk to. It needs no account and no
// internet, and nothing that it starts sends to an address other than this
// host's own. It exists for the demo, the tests and the benchmarks; it is not
// part of the wheel.
//
//	localnet serve   the control server, its relays and its admin API (admin.go)
//	localnet peer    a node that serves HTTP, HTTPS and plain TCP (peer.go, hostile.go)
//
// Each prints one line of JSON on stdout once it is ready and nothing else, and
// stops on SIGINT or SIGTERM, and with -stdin when its standard input ends.
//
// A Tailscale node needs an address beside loopback before it believes in a
// network. In a private network namespace one is enough:
//
//	unshare -n sh -c 'ip link set lo up; ip addr add 10.99.0.1/32 dev lo; exec localnet serve'
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
)

// command is one subcommand. It prints its line of JSON by calling ready and
// returns when ctx ends, or earlier with an error.
type command func(ctx context.Context, ready func(any) error) error

func main() {
	err := run(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "localnet:", err)
		os.Exit(1)
	}
}

// run parses the command line and runs one subcommand to its end.
func run(args []string) error {
	if len(args) == 0 {
		return errors.New("name a subcommand: serve or peer")
	}
	flags := flag.NewFlagSet("localnet "+args[0], flag.ContinueOnError)
	stopWithStdin := flags.Bool("stdin", false, "stop when standard input ends")
	verbose := flags.Bool("v", false, "log to standard error")
	var cmd command
	switch args[0] {
	case "serve":
		cmd = serveCommand(flags)
	case "peer":
		cmd = peerCommand(flags)
	default:
		return fmt.Errorf("no subcommand %q: there are serve and peer", args[0])
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s takes no argument %q", args[0], flags.Arg(0))
	}
	if !*verbose {
		log.SetOutput(io.Discard)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *stopWithStdin {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false) // URLs are to be read
	return cmd(ctx, func(line any) error { return out.Encode(line) })
}
