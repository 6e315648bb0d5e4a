package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// door is a listener on one loopback port that can be shut, which also closes
// every connection that came through it, and opened again on the same port.
type door struct {
	addr  string
	port  int
	serve func(net.Listener)

	mu    sync.Mutex
	ln    net.Listener // nil while shut
	conns map[net.Conn]struct{}
}

// openDoor opens a door on a free port and serves what comes in. The port lies
// below the range from which the system picks ports for outgoing connections:
// nobody else can be given it while the door is shut.
func openDoor(serve func(net.Listener)) (*door, error) {
	d := &door{serve: serve, conns: map[net.Conn]struct{}{}}
	var err error
	for range 100 {
		d.port = 20_000 + rand.IntN(10_000)
		d.addr = fmt.Sprintf("127.0.0.1:%d", d.port)
		if err = d.open(); err == nil {
			return d, nil
		}
	}
	return nil, fmt.Errorf("no port to listen on: %w", err)
}

// open starts listening, if the door is shut.
func (d *door) open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ln != nil {
		return nil
	}
	ln, err := net.Listen("tcp", d.addr)
	if err != nil {
		return err
	}
	d.ln = ln
	go d.serve(&doorListener{ln, d})
	return nil
}

// hold sees to it that the door is open, or shut.
func (d *door) hold(open bool) error {
	if open {
		return d.reopen()
	}
	d.shut()
	return nil
}

// reopen opens a shut door, trying for some seconds where the port is not free
// at once.
func (d *door) reopen() error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := d.open()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// shut stops listening and closes every connection.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ln != nil {
		d.ln.Close()
		d.ln = nil
	}
	for c := range d.conns {
		c.Close()
	}
	clear(d.conns)
}

// doorListener notes the connections that it accepts.
type doorListener struct {
	net.Listener
	d *door
}

func (l *doorListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.d.ln != l.Listener {
		// Shut between the accept and here.
		c.Close()
		return nil, net.ErrClosed
	}
	l.d.conns[c] = struct{}{}
	return &doorConn{c, l.d}, nil
}

type doorConn struct {
	net.Conn
	d *door
}

func (c *doorConn) Close() error {
	c.d.mu.Lock()
	delete(c.d.conns, c.Conn)
	c.d.mu.Unlock()
	return c.Conn.Close()
}
