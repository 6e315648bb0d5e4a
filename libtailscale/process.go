package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"tailscale.com/envknob"
	"tailscale.com/hostinfo"
	"tailscale.com/types/logger"
)

// What is the process's and not a node's: the environment, the log, the memory.

// tsnetVariables are what tsnet reads from the environment by itself
// (tsnet.Server.getAuthKey and its siblings, envknob TSNET_FORCE_LOGIN).
var tsnetVariables = []string{
	"TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_SECRET", "TS_CLIENT_ID", "TS_ID_TOKEN",
	"TS_AUDIENCE", "TS_CONTROL_URL", "TSNET_FORCE_LOGIN",
}

var prepareOnce sync.Once

// prepareProcess runs before the first node exists.
func prepareProcess(uploadLogs bool) {
	prepareOnce.Do(func() {
		for _, name := range tsnetVariables {
			envknob.Setenv(name, "") // envknob keeps what it has read
			os.Unsetenv(name)
		}
		if !uploadLogs {
			envknob.SetNoLogsNoSupport()
		}
		// With its netmap from last time a node says Running before control has
		// answered, and also when control then refuses it.
		envknob.Setenv("TS_USE_CACHED_NETMAP", "false")
		hostinfo.SetApp("cc-tailscale")
		log.SetFlags(0)
		log.SetOutput(io.Discard) // nothing of Go on stderr but stderrLog's lines
	})
}

// stderrLog writes lines to stderr without ever holding the node up: a client
// that does not read its end costs lines and not the tailnet. It writes to a
// duplicate of descriptor 2, since Go ends the process when fd 2 itself is a
// broken pipe.
var stderrLog = sync.OnceValue(func() func(line string) {
	lines := make(chan string, 1024)
	fd, err := dupCloseOnExec(2)
	if err != nil {
		return func(string) {}
	}
	var lost atomic.Int64
	go func() {
		for line := range lines {
			if n := lost.Swap(0); n > 0 {
				line += " (before this, lines were lost: stderr was full)"
			}
			writeAll(fd, line+"\n")
		}
	}()
	return func(line string) {
		select {
		case lines <- line:
		default:
			lost.Add(1)
		}
	}
})

func writeAll(fd int, text string) {
	for b := []byte(text); len(b) > 0; {
		n, err := syscall.Write(fd, b)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			time.Sleep(10 * time.Millisecond)
		case err != nil:
			return
		default:
			b = b[n:]
		}
	}
}

// keyPattern is the second net of the redaction: keys that were not named.
var keyPattern = regexp.MustCompile(`(tskey|hskey)-[A-Za-z0-9-]+|privkey:[0-9a-f]+`)

const redacted = "[secret]"

// secrets are the values that must not show in a node's log.
type secrets struct {
	mu       sync.Mutex
	values   []string
	replacer *strings.Replacer
}

func newSecrets(values ...string) *secrets {
	s := new(secrets)
	s.add(values...)
	return s
}

// add redacts these from now on.
func (s *secrets) add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = slices.DeleteFunc(append(s.values, values...), func(v string) bool { return v == "" })
	// The longest first: of two that begin alike, the shorter would leave a rest.
	slices.SortFunc(s.values, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, v := range s.values {
		pairs = append(pairs, v, redacted)
	}
	s.replacer = strings.NewReplacer(pairs...)
}

func (s *secrets) redact(text string) string {
	s.mu.Lock()
	r := s.replacer
	s.mu.Unlock()
	return keyPattern.ReplaceAllString(r.Replace(text), redacted)
}

// nodeLog is the log of one node: nothing, or every line on stderr with the
// node's secrets replaced.
func nodeLog(verbose bool, secrets *secrets) logger.Logf {
	if !verbose {
		return logger.Discard
	}
	write := stderrLog()
	return func(format string, args ...any) {
		text := secrets.redact(fmt.Sprintf(format, args...))
		for line := range strings.Lines(strings.TrimSpace(text)) {
			write("tsnet: " + strings.Map(printable, line))
		}
	}
}

// printable drops what is not text: names that peers chose are in the log, and
// the log may be shown by a terminal.
func printable(r rune) rune {
	if unicode.IsControl(r) {
		return -1
	}
	return r
}

// Memory. A transfer makes Go's heap grow to several hundred MiB, and Go gives
// it back slowly. While bytes move nothing is done; quietAfter later it is
// handed back in one go (10-25 ms on a thread of its own).
const (
	quietAfter  = 3 * time.Second
	heapPercent = 50 // GOGC: bounds the peak at little cost in speed
)

// starts counts the starts under way.
var starts struct {
	mu       sync.Mutex
	underWay int
}

// uncollected runs one start of a node without garbage collection. It makes
// some 30 MB within milliseconds, most of which stays: collecting meanwhile
// would cost a third of the whole join.
func uncollected(start func() error) error {
	countStart(1)
	defer countStart(-1)
	return start()
}

func countStart(change int) {
	starts.mu.Lock()
	defer starts.mu.Unlock()
	starts.underWay += change
	if starts.underWay > 0 {
		debug.SetGCPercent(-1)
	} else {
		debug.SetGCPercent(heapPercent)
	}
}

var movement struct {
	last     atomic.Int64 // unix ns
	watching atomic.Bool
}

// noteMoved says that n bytes went through a connection just now.
func noteMoved(n int) {
	if n <= 0 {
		return
	}
	movement.last.Store(time.Now().UnixNano())
	if movement.watching.CompareAndSwap(false, true) {
		go handBackWhenQuiet()
	}
}

func handBackWhenQuiet() {
	for {
		if quiet := sinceLastMove(); quiet < quietAfter {
			time.Sleep(quietAfter - quiet)
			continue
		}
		handBackMemory()
		movement.watching.Store(false)
		// Bytes that moved since the last look have found a watcher and started none.
		if sinceLastMove() >= quietAfter || !movement.watching.CompareAndSwap(false, true) {
			return
		}
	}
}

func sinceLastMove() time.Duration {
	return time.Since(time.Unix(0, movement.last.Load()))
}

// handBackMemory frees twice: the first collection only moves what sync.Pool
// holds to its victim list.
func handBackMemory() {
	debug.FreeOSMemory()
	debug.FreeOSMemory()
}
