package main

import (
	"reflect"
	"time"

	"tailscale.com/tsnet"
)

// stuckAfter is far above what a close takes (some milliseconds), except where
// it waits for control.
const stuckAfter = 250 * time.Millisecond

// closeServer closes a server that was started.
//
// netstack (tailscale.com/wgengine/netstack.Impl.Close, v1.102.5) stops sending
// packets first and then resets every connection, those in TIME_WAIT included.
// Beyond the 512 packets that its queue holds, that waits for ever; a few hundred
// fetches at once are enough. Closing the queue ends the wait.
func closeServer(s *tsnet.Server) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Close()
	}()
	select {
	case <-done:
	case <-time.After(stuckAfter):
		closeQueue(s)
		<-done
	}
}

// closeQueue closes the link endpoint of the server's netstack, which is not
// exported. Where a later version has none of this name, nothing happens.
func closeQueue(s *tsnet.Server) {
	stack, ok := s.Sys().Netstack.GetOK()
	if !ok {
		return
	}
	v := reflect.Indirect(reflect.ValueOf(stack))
	if v.Kind() != reflect.Struct {
		return
	}
	field := v.FieldByName("linkEP")
	if !field.IsValid() || !field.CanAddr() {
		return
	}
	link := reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem().Interface()
	if closer, ok := link.(interface{ Close() }); ok {
		closer.Close()
	}
}
