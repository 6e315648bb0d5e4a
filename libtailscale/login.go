package main

import (
	"context"

	"tailscale.com/ipn"
)

// login is a login of a node that runs already, from its beginning until
// control is asked.
type login struct {
	done chan struct{} // closed once err is set
	err  error
}

// login logs the node in again in its place, with a key or through a link. It
// returns once control is asked. A login that is beginning is waited for, and
// no second one begun: the first may have used a single-use key up.
func (n *node) login(ctx context.Context, authKey, clientSecret string) error {
	if err := n.running(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	l := n.beginningLogin(func() error { return n.beginLogin(ctx, authKey, clientSecret) })
	select {
	case <-l.done:
	case <-ctx.Done():
	}
	switch {
	case n.ctx.Err() != nil:
		return errNodeClosed
	case ctx.Err() != nil:
		return failf(codeTimeout, "the login did not begin in time")
	}
	return l.err
}

// beginningLogin is the login that is beginning, or one that begins with this.
func (n *node) beginningLogin(begin func() error) *login {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.loggingIn != nil {
		return n.loggingIn
	}
	l := &login{done: make(chan struct{})}
	if n.ctx.Err() != nil { // shutdown has looked already
		l.err = errNodeClosed
		close(l.done)
		return l
	}
	n.loggingIn = l
	go func() {
		l.err = begin()
		n.mu.Lock()
		n.loggingIn = nil
		n.mu.Unlock()
		close(l.done)
	}()
	return l
}

// beginLogin does what "tailscale up --force-reauth --auth-key" does: a new
// control client that has the key (and forgets the former one, with its link),
// and a request with a new node key and the old one beside it (OldNodeKey), by
// which control knows the device. Without a key control answers with a link.
func (n *node) beginLogin(ctx context.Context, authKey, clientSecret string) error {
	n.secrets.add(authKey, clientSecret)
	key, err := n.authKey(ctx, authKey, clientSecret)
	if err != nil {
		return err
	}
	n.secrets.add(key)
	// Not ctx: given up in its midst, a call leaves a connection to LocalAPI for
	// which tsnet's close waits five seconds.
	if err := n.api().Start(context.Background(), ipn.Options{AuthKey: key}); err != nil {
		return failf(codeInternal, "login: %v", err)
	}
	if err := n.api().StartLoginInteractive(context.Background()); err != nil {
		return failf(codeInternal, "login: %v", err)
	}
	return nil
}
