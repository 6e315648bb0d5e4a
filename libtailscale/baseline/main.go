// Command baseline is what cc-tailscale is measured beside: a bare tsnet node
// with a SOCKS port and a control API, as an MCP server in another language
// would have it for a child (bench/baseline). Its page /floor fetches from
// within, which nothing in another process can beat.
//
// It prints one line of JSON on stdout once the node is running, and logs out
// on SIGINT or SIGTERM or when its standard input ends.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tailscale.com/envknob"
	"tailscale.com/ipn/store/mem"
	"tailscale.com/tsnet"
)

const (
	// joinLimit bounds how long the node may take to be running.
	joinLimit = 60 * time.Second
	// leaveLimit bounds the logout on the way out.
	leaveLimit = 3 * time.Second
)

// line is what the program prints. The user of SOCKS is tsnet's own.
type line struct {
	Hostname string  `json:"hostname"`
	SOCKS    string  `json:"socks"` // ip:port
	User     string  `json:"user"`
	Password string  `json:"password"`
	API      string  `json:"api"` // http://ip:port
	Token    string  `json:"token"`
	StartMS  float64 `json:"start_ms"` // from the call of Start to the state Running, this process already up
}

func main() {
	control := flag.String("control", "", "URL of the control server")
	authKey := flag.String("authkey", "", "auth key")
	hostname := flag.String("hostname", "", "hostname")
	dir := flag.String("dir", "", "state directory, which is kept; default: state in memory")
	flag.Parse()
	log.SetOutput(io.Discard)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := run(ctx, *control, *authKey, *hostname, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "baseline:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, control, authKey, hostname, dir string) error {
	// No node of a benchmark sends logs or asks a router for a port.
	envknob.SetNoLogsNoSupport()
	envknob.Setenv("TS_DISABLE_PORTMAPPER", "1")
	s := &tsnet.Server{
		ControlURL: control, AuthKey: authKey, Hostname: hostname, Dir: dir, Ephemeral: true,
		UserLogf: func(string, ...any) {},
	}
	if dir == "" {
		temporary, err := os.MkdirTemp("", "baseline-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temporary)
		s.Dir, s.Store = temporary, new(mem.Store)
	}
	joining, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	began := time.Now()
	_, err := s.Up(joining)
	defer s.Close()
	if err != nil {
		return err
	}
	said := line{Hostname: hostname, User: "tsnet", StartMS: float64(time.Since(began).Microseconds()) / 1000}
	lc, err := s.LocalClient()
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), leaveLimit)
		defer cancel()
		// Without an answer control still notices that the node is away.
		_ = lc.Logout(ctx)
	}()
	if said.SOCKS, said.Password, _, err = s.Loopback(); err != nil {
		return err
	}
	if said.API, said.Token, err = serveAPI(s, lc); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
