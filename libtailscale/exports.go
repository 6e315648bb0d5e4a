// The C archive of the node: Tailscale's tsnet for a process that is not Go.
//
// tailscale.h is the contract. This file holds its calls and nothing else: each
// turns C arguments into Go ones, calls the node, and turns the error into a
// code and a text.
package main

/*
#include <stdlib.h>
#include "tailscale.h"
*/
import "C"

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
	"unsafe"
)

func main() {}

// nodes holds every node that was made and not closed, by handle.
var nodes = struct {
	sync.Mutex
	byHandle map[C.int]*node
	last     C.int
}{byHandle: map[C.int]*node{}}

func nodeOf(handle C.int) (*node, error) {
	nodes.Lock()
	defer nodes.Unlock()
	n, ok := nodes.byHandle[handle]
	if !ok {
		return nil, failf(codeClosed, "there is no node %d, or it is closed", int(handle))
	}
	return n, nil
}

// call runs fn for the node and reports its error in C. A panic becomes an
// error, since it would end the whole process otherwise.
func call(handle C.int, errOut **C.char, fn func(n *node) error) C.int {
	return report(errOut, func() error {
		n, err := nodeOf(handle)
		if err != nil {
			return err
		}
		return fn(n)
	})
}

func report(errOut **C.char, fn func() error) (result C.int) {
	defer func() {
		if p := recover(); p != nil {
			result = fill(errOut, fmt.Errorf("panic in the node: %v\n%s", p, debug.Stack()))
		}
	}()
	if err := fn(); err != nil {
		return fill(errOut, err)
	}
	return C.TAILSCALE_OK
}

func fill(errOut **C.char, err error) C.int {
	if errOut != nil {
		*errOut = C.CString(err.Error())
	}
	return C.int(codeOf(err))
}

// within runs fn with a deadline of timeoutMs from now.
func within(timeoutMs C.int, fn func(ctx context.Context) error) error {
	if timeoutMs <= 0 {
		return failf(codeInvalid, "timeout_ms must be positive, not %d", int(timeoutMs))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(timeoutMs)*time.Millisecond)
	defer cancel()
	return fn(ctx)
}

//export tailscale_new
func tailscale_new(config *C.char, node *C.int, err **C.char) C.int {
	return report(err, func() error {
		n, e := newNode(C.GoString(config))
		if e != nil {
			return e
		}
		nodes.Lock()
		defer nodes.Unlock()
		nodes.last++
		nodes.byHandle[nodes.last] = n
		*node = nodes.last
		return nil
	})
}

//export tailscale_start
func tailscale_start(handle C.int, timeoutMs C.int, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		return within(timeoutMs, n.start)
	})
}

//export tailscale_loopback
func tailscale_loopback(handle C.int, addr, socksPassword, apiPassword, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		l, e := n.openLoopback()
		if e != nil {
			return e
		}
		*addr = C.CString(l.addr())
		*socksPassword = C.CString(l.socksPassword)
		*apiPassword = C.CString(l.apiPassword)
		return nil
	})
}

//export tailscale_dial
func tailscale_dial(handle C.int, network, address *C.char, timeoutMs C.int, fd *C.int, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		return within(timeoutMs, func(ctx context.Context) error {
			f, e := n.dialFD(ctx, C.GoString(network), C.GoString(address))
			*fd = C.int(f)
			return e
		})
	})
}

//export tailscale_listen
func tailscale_listen(handle C.int, network, address *C.char, fd *C.int, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		f, e := n.listenFD(C.GoString(network), C.GoString(address))
		*fd = C.int(f)
		return e
	})
}

//export tailscale_known
func tailscale_known(handle C.int, timeoutMs C.int, known *C.int, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		return within(timeoutMs, func(ctx context.Context) error {
			has, e := n.known(ctx)
			*known = 0
			if has {
				*known = 1
			}
			if e != nil && ctx.Err() != nil {
				return failf(codeTimeout, "control did not answer in time")
			}
			return e
		})
	})
}

//export tailscale_whois
func tailscale_whois(handle C.int, address *C.char, timeoutMs C.int, answer, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		return within(timeoutMs, func(ctx context.Context) error {
			text, e := n.whois(ctx, C.GoString(address))
			if e == nil {
				*answer = C.CString(text)
			}
			return e
		})
	})
}

//export tailscale_netcheck
func tailscale_netcheck(handle C.int, timeoutMs C.int, report, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		return within(timeoutMs, func(ctx context.Context) error {
			text, e := n.netcheckJSON(ctx)
			if e == nil {
				*report = C.CString(text)
			}
			return e
		})
	})
}

//export tailscale_login
func tailscale_login(handle C.int, authKey, clientSecret *C.char, timeoutMs C.int, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		return within(timeoutMs, func(ctx context.Context) error {
			return n.login(ctx, C.GoString(authKey), C.GoString(clientSecret))
		})
	})
}

//export tailscale_logout
func tailscale_logout(handle C.int, timeoutMs C.int, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		return within(timeoutMs, n.logout)
	})
}

//export tailscale_close
func tailscale_close(handle C.int, timeoutMs C.int, err **C.char) C.int {
	return call(handle, err, func(n *node) error {
		return within(timeoutMs, func(ctx context.Context) error {
			nodes.Lock()
			delete(nodes.byHandle, handle)
			nodes.Unlock()
			return n.close(ctx)
		})
	})
}

//export tailscale_free
func tailscale_free(text *C.char) {
	C.free(unsafe.Pointer(text))
}
