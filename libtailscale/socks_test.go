package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
)

// socksGreeting offers the password, or what is given instead.
func socksGreeting(methods ...byte) []byte {
	if len(methods) == 0 {
		methods = []byte{socksPassword}
	}
	return append([]byte{5, byte(len(methods))}, methods...)
}

func socksLogin(user, password string) []byte {
	b := append([]byte{1, byte(len(user))}, user...)
	return append(append(b, byte(len(password))), password...)
}

// socksAsk is a request for an address; a name, where it is none.
func socksAsk(command byte, address string) []byte {
	host, port, _ := net.SplitHostPort(address)
	b := []byte{5, command, 0}
	switch ip, err := netip.ParseAddr(host); {
	case err != nil:
		b = append(append(b, socksName, byte(len(host))), host...)
	case ip.Is4():
		b = append(append(b, socksIPv4), ip.AsSlice()...)
	default:
		b = append(append(b, socksIPv6), ip.AsSlice()...)
	}
	p, _ := net.LookupPort("tcp", port)
	return binary.BigEndian.AppendUint16(b, uint16(p))
}

// socksClient is a connection to a node's loopback port.
type socksClient struct {
	*net.TCPConn
	t testing.TB
	l *loopback
}

func socksTo(t testing.TB, n *node) *socksClient {
	t.Helper()
	l, err := n.openLoopback()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTimeout("tcp", l.addr(), waitLimit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(waitLimit))
	return &socksClient{c.(*net.TCPConn), t, l}
}

func (c *socksClient) put(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *socksClient) want(b ...byte) {
	c.t.Helper()
	receive(c.t, c, string(b))
}

func (c *socksClient) wantEnd() {
	c.t.Helper()
	if rest := readAll(c.t, c); rest != "" {
		c.t.Errorf("%q and not the end", rest)
	}
}

// in goes as far as the request.
func (c *socksClient) in() *socksClient {
	c.t.Helper()
	c.put(socksGreeting())
	c.want(5, socksPassword)
	c.put(socksLogin("tsnet", c.l.socksPassword))
	c.want(1, 0)
	return c
}

// asks sends a request and gives the reply's code.
func (c *socksClient) asks(command byte, address string) byte {
	c.t.Helper()
	c.put(socksAsk(command, address))
	return c.reply()
}

func (c *socksClient) reply() byte {
	c.t.Helper()
	b := make([]byte, 10)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatalf("no reply: %v after %v", err, b)
	}
	code := b[1]
	b[1] = 0
	if !bytes.Equal(b, []byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}) {
		c.t.Errorf("the reply is malformed: %v", b)
	}
	return code
}

// reached is a client whose request for an address has succeeded.
func reached(t testing.TB, n *node, address string) *socksClient {
	t.Helper()
	c := socksTo(t, n).in()
	if code := c.asks(socksConnect, address); code != socksSucceeded {
		t.Fatalf("reply %d for %s", code, address)
	}
	return c
}

func TestSocksConnectsToAPeer(t *testing.T) {
	n, p := probe(t), webPeer(t)
	for _, address := range []string{p.v4(echoPort), p.v6(echoPort)} {
		c := reached(t, n, address)
		send(t, c, "hello")
		receive(t, c, "hello")
		c.CloseWrite()
		c.wantEnd()
	}
}

func TestSocksPassesTheEndOfEachDirectionOnByItself(t *testing.T) {
	n, p := probe(t), webPeer(t)
	c := reached(t, n, p.v4(echoPort))
	// The client ends first: all that it sent comes back, and then the end.
	long := strings.Repeat("0123456789", 100_000)
	go func() {
		io.WriteString(c, long)
		c.CloseWrite()
	}()
	if got := readAll(t, c); got != long {
		t.Errorf("%d bytes came back and not %d", len(got), len(long))
	}
	// The far end ends first: it still hears what the client says.
	l := listening(t, joined(t, configFor(t, "far-end")))
	acquainted(t, n, l.n)
	c = reached(t, n, l.address())
	far := l.next()
	send(t, far, "that is all")
	far.CloseWrite()
	if got := readAll(t, c); got != "that is all" {
		t.Errorf("%q", got)
	}
	send(t, c, "but I have more")
	c.CloseWrite()
	if got := readAll(t, far); got != "but I have more" {
		t.Errorf("%q", got)
	}
}

func TestSocksNeedsItsUserAndPassword(t *testing.T) {
	n := probe(t)
	password := socksTo(t, n).l.socksPassword
	for name, login := range map[string][]byte{
		"wrong password":        socksLogin("tsnet", strings.Repeat("x", len(password))),
		"no password":           socksLogin("tsnet", ""),
		"part of the password":  socksLogin("tsnet", password[:len(password)-1]),
		"more than that":        socksLogin("tsnet", password+"x"),
		"another user":          socksLogin("root", password),
		"no user":               socksLogin("", password),
		"LocalAPI's password":   socksLogin("tsnet", socksTo(t, n).l.apiPassword),
		"another version":       append([]byte{5}, socksLogin("tsnet", password)[1:]...),
		"the password as user":  socksLogin(password, "tsnet"),
		"the longest there are": socksLogin(strings.Repeat("u", 255), strings.Repeat("p", 255)),
	} {
		t.Run(name, func(t *testing.T) {
			c := socksTo(t, n)
			c.put(socksGreeting())
			c.want(5, socksPassword)
			c.put(login)
			c.want(1, 1)
			if rest, _ := io.ReadAll(c); len(rest) > 0 { // a reset is an end as well
				t.Errorf("then it says %v", rest)
			}
		})
	}
}

func TestSocksWithoutAPasswordMethodIsTurnedAway(t *testing.T) {
	for _, methods := range [][]byte{{0}, {1}, {0, 1, 0x80, 0xfe}, {0xff}} {
		c := socksTo(t, probe(t))
		c.put(socksGreeting(methods...))
		c.want(5, socksNoMethod)
		c.wantEnd()
	}
	c := socksTo(t, probe(t))
	c.put([]byte{5, 0})
	c.want(5, socksNoMethod)
	c.wantEnd()
}

func TestSocksTakesThePasswordFromAmongOtherMethods(t *testing.T) {
	c := socksTo(t, probe(t))
	c.put(socksGreeting(0, 1, socksPassword))
	c.want(5, socksPassword)
}

func TestSocksSaysWhyItDoesNotConnect(t *testing.T) {
	n, p := probe(t), webPeer(t)
	awaitPeer(t, n, netip.MustParseAddr(p.IPs[0]))
	const bind, associate = 2, 3
	for name, test := range map[string]struct {
		command byte
		address string
		want    byte
	}{
		"a name":                   {socksConnect, "web:80", 8},
		"a name that is a number":  {socksConnect, "2130706433:80", 8},
		"BIND":                     {bind, p.v4(echoPort), 7},
		"UDP ASSOCIATE":            {associate, p.v4(echoPort), 7},
		"command 0":                {0, p.v6(echoPort), 7},
		"a closed port":            {socksConnect, p.v4(closedPort), 5},
		"a closed port by IPv6":    {socksConnect, p.v6(closedPort), 5},
		"nobody's address":         {socksConnect, "100.99.98.97:80", 2},
		"a public address":         {socksConnect, "203.0.113.7:80", 2},
		"loopback":                 {socksConnect, "127.0.0.1:80", 2},
		"loopback in IPv6 clothes": {socksConnect, "[::ffff:127.0.0.1]:80", 2},
		"cloud metadata":           {socksConnect, "169.254.169.254:80", 2},
		"the node itself":          {socksConnect, fmt.Sprintf("%s:80", ownIP(t, n)), 2},
		"port 0":                   {socksConnect, p.v4(0), 8},
	} {
		t.Run(name, func(t *testing.T) {
			c := socksTo(t, n).in()
			if got := c.asks(test.command, test.address); got != test.want {
				t.Errorf("reply %d and not %d", got, test.want)
			}
			if rest, _ := io.ReadAll(c); len(rest) > 0 {
				t.Errorf("then it says %v", rest)
			}
		})
	}
}

func TestEveryFailureOfADialHasItsOwnSocksReply(t *testing.T) {
	for c, want := range map[code]byte{codeNotOnTailnet: 2, codeUnreachable: 4, codeRefused: 5, codeTimeout: 6, codeInvalid: 8} {
		if got := socksReplies[c]; got != want {
			t.Errorf("code %d has reply %d and not %d", c, got, want)
		}
	}
}

func TestSocksServesNoServiceOfThisHost(t *testing.T) {
	addresses, nobodyCame := closedTo(t, "127.0.0.1", "::1", hostAddress.String())
	for _, address := range addresses {
		if code := socksTo(t, probe(t)).in().asks(socksConnect, address); code != socksNotAllowed {
			t.Errorf("%s: reply %d", address, code)
		}
	}
	nobodyCame()
}

func TestSocksKeepsWhatTheClientSendsAheadOfTheReply(t *testing.T) {
	n, p := probe(t), webPeer(t)
	c := socksTo(t, n)
	all := append(socksGreeting(), socksLogin("tsnet", c.l.socksPassword)...)
	all = append(all, socksAsk(socksConnect, p.v4(echoPort))...)
	ahead := strings.Repeat("ahead of time ", 20_000) // more than any buffer on the way
	go c.Write(append(all, ahead...))
	c.want(5, socksPassword, 1, 0)
	if code := c.reply(); code != socksSucceeded {
		t.Fatalf("reply %d", code)
	}
	receive(t, c, ahead)
}

func TestSocksTakesARequestByteByByte(t *testing.T) {
	n, p := probe(t), webPeer(t)
	c := socksTo(t, n)
	c.SetNoDelay(true)
	all := append(socksGreeting(), socksLogin("tsnet", c.l.socksPassword)...)
	for _, b := range append(all, socksAsk(socksConnect, p.v4(echoPort))...) {
		c.put([]byte{b})
		runtime.Gosched()
	}
	c.want(5, socksPassword, 1, 0)
	if code := c.reply(); code != socksSucceeded {
		t.Errorf("reply %d", code)
	}
}

// owned is how many connections and listeners the node has to end at its close.
func owned(n *node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.onClose)
}

func TestADialIsGivenUpWhenTheClientHangsUp(t *testing.T) {
	n := probe(t)
	silent := silentPeer(t, n)
	eventually(t, "what ran before is over", func() bool { return len(goroutinesIn("dialWhileConnected")) == 0 })
	before := owned(n)
	c := socksTo(t, n).in()
	c.put(socksAsk(socksConnect, silent))
	eventually(t, "the dial is under way", func() bool {
		return len(goroutinesIn("NetstackDialTCP")) > 0 || len(goroutinesIn("DialContextTCP")) > 0
	})
	c.Close()
	began := time.Now()
	eventually(t, "the dial is given up", func() bool { return len(goroutinesIn("dialWhileConnected")) == 0 && owned(n) <= before })
	if took := time.Since(began); took > soon {
		t.Errorf("it took %v", took)
	}
}

func TestADialEndsWithTheNodeAndTheClientIsTold(t *testing.T) {
	n := joined(t, configFor(t, "leaver"))
	silent := silentPeer(t, n)
	c := socksTo(t, n).in()
	c.put(socksAsk(socksConnect, silent))
	eventually(t, "the dial is under way", func() bool { return len(goroutinesIn("dialWhileConnected")) > 0 })
	if err := closeWithin(n, soon); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection does not end: %v", err)
	}
}

func TestGarbageOnTheLoopbackPortEndsInNothing(t *testing.T) {
	n := probe(t)
	for _, garbage := range []string{
		"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", // SOCKS4
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", // TLS
		"\x05",
		"\x05\xff",
		"\x05\x01\x02\x01\xff",
		strings.Repeat("\x00", 10_000),
		"GET\r\n\r\n",
		strings.Repeat("A", 10_000),
	} {
		c := socksTo(t, n)
		c.put([]byte(garbage))
		c.CloseWrite()
		b, _ := io.ReadAll(c)
		if bytes.Contains(b, []byte{5, 0, 0, 1}) || bytes.HasPrefix(b, []byte("HTTP/1.1 2")) {
			t.Errorf("%.20q is answered with %q", garbage, b)
		}
	}
	reached(t, n, webPeer(t).v4(echoPort)) // and it is still there
}

func TestAClientThatSaysNothingIsLetGo(t *testing.T) {
	n := probe(t)
	l, err := n.openLoopback()
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	for _, begin := range []string{"", "\x05", "\x05\x01\x02", "GET / HT"} {
		c, err := net.Dial("tcp", l.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		send(t, c, begin)
		t.Run(fmt.Sprintf("after %q", begin), func(t *testing.T) {
			t.Parallel()
			c.SetDeadline(time.Now().Add(greetingTimeout + waitLimit))
			began := time.Now()
			io.Copy(io.Discard, c) // ends with the connection, or fails with the deadline
			if took := time.Since(began); took > greetingTimeout+soon {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// script is a client that has said all that it will say.
type script struct {
	io.Reader
	said bytes.Buffer // what it heard
}

func (s *script) Write(b []byte) (int, error) { return s.said.Write(b) }

func FuzzSocksRequest(f *testing.F) {
	const password = "open sesame"
	good := append(socksGreeting(), socksLogin("tsnet", password)...)
	for _, address := range []string{"100.64.0.1:80", "[fd7a:115c:a1e0::1]:443", "[::ffff:127.0.0.1]:1", "web:80", "0.0.0.0:0"} {
		for _, command := range []byte{0, 1, 2, 3} {
			f.Add(append(bytes.Clone(good), socksAsk(command, address)...))
		}
	}
	f.Add([]byte{})
	f.Add([]byte{5})
	f.Add([]byte{5, 0})
	f.Add([]byte{4, 1, 0, 80, 127, 0, 0, 1, 0})
	f.Add(socksGreeting(0, 1))
	f.Add(append(socksGreeting(), socksLogin("root", password)...))
	f.Add(append(socksGreeting(), socksLogin("tsnet", "close sesame")...))
	f.Add(bytes.Repeat([]byte{0xff}, 1000))
	f.Add(append(bytes.Clone(good), 5, 1, 0, 9, 1, 2, 3))
	// The longest conversation: greeting, login, request.
	const most = 2 + 255 + 2 + 255 + 1 + 255 + 4 + 16 + 2
	f.Fuzz(func(t *testing.T, said []byte) {
		in := bytes.NewReader(said)
		s := &script{Reader: in}
		address, reply := socksRequest(s, password)
		heard := s.said.Bytes()
		loggedIn := bytes.HasSuffix(heard, []byte{1, 0})
		if loggedIn && !bytes.Contains(said, socksLogin("tsnet", password)) {
			t.Fatalf("%q got in without the password", said)
		}
		if (address != "" || reply != socksSucceeded) && !loggedIn {
			t.Fatalf("a request was read before the login: %q %d", address, reply)
		}
		if address != "" {
			if reply != socksSucceeded {
				t.Fatalf("an address %q and the refusal %d", address, reply)
			}
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				t.Fatalf("%q is no address", address)
			}
			// Who asks for it in the plain way says the same, but for the reserved byte.
			plain, consumed := socksAsk(socksConnect, ap.String()), said[:len(said)-in.Len()]
			request := consumed[len(consumed)-len(plain):]
			if !bytes.Equal(request[:2], plain[:2]) || !bytes.Equal(request[3:], plain[3:]) {
				t.Fatalf("%q is not what %q asks for", address, said)
			}
		}
		if read := len(said) - in.Len(); read > most {
			t.Fatalf("%d bytes were read", read)
		}
		if len(heard) > 4 {
			t.Fatalf("it said %q before a dial", heard)
		}
	})
}
