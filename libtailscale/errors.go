package main

/*
#include "tailscale.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// code is a TAILSCALE_ERR_* value of tailscale.h.
type code int

const (
	codeInternal     code = C.TAILSCALE_ERR_INTERNAL
	codeInvalid      code = C.TAILSCALE_ERR_INVALID
	codeClosed       code = C.TAILSCALE_ERR_CLOSED
	codeTimeout      code = C.TAILSCALE_ERR_TIMEOUT
	codeNotOnTailnet code = C.TAILSCALE_ERR_NOT_ON_TAILNET
	codeRefused      code = C.TAILSCALE_ERR_REFUSED
	codeUnreachable  code = C.TAILSCALE_ERR_UNREACHABLE
	codeKey          code = C.TAILSCALE_ERR_KEY
	codeState        code = C.TAILSCALE_ERR_STATE
)

// acceptBytes is the size of one message on a listener's socket.
const acceptBytes = C.TAILSCALE_ACCEPT_BYTES

// failure is an error with a code of the contract.
type failure struct {
	code code
	text string
}

func (f *failure) Error() string { return f.text }

func failf(c code, format string, args ...any) error {
	return &failure{c, fmt.Sprintf(format, args...)}
}

func codeOf(err error) code {
	var f *failure
	if errors.As(err, &f) {
		return f.code
	}
	return codeInternal
}

// dialFailure classifies what a dial ended with. gVisor's errors have no type
// that survives gonet (it wraps their text), so the text is what there is.
func dialFailure(address string, err error) error {
	text := err.Error()
	var timeout net.Error
	switch {
	case codeOf(err) != codeInternal:
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout(),
		strings.Contains(text, "timed out"):
		return failf(codeTimeout, "no answer from %s in time", address)
	case errors.Is(err, context.Canceled):
		return failf(codeClosed, "the dial to %s was cancelled", address)
	case errors.Is(err, syscall.ECONNREFUSED), strings.Contains(text, "refused"):
		return failf(codeRefused, "%s refused the connection", address)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		strings.Contains(text, "unreachable"), strings.Contains(text, "no route"):
		return failf(codeUnreachable, "no path to %s: %s", address, text)
	}
	return failf(codeInternal, "dial %s: %s", address, text)
}
