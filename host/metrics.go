package host

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics collects when it is asked: followers tell where they stand.
type metrics struct {
	host     *Host
	registry *prometheus.Registry
	requests *prometheus.HistogramVec

	first, head, lag, seconds, parked, stalled *prometheus.Desc
}

func newMetrics(h *Host) *metrics {
	service := prometheus.Labels{"service": h.name}
	labels := []string{"follower", "source"}
	m := &metrics{
		host: h, registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "freehold_http_seconds", Help: "Time to answer a request.", ConstLabels: service,
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30}}, []string{"method", "code"}),
		first:   prometheus.NewDesc("freehold_journal_first", "Position before the first event that is still in the journal.", nil, service),
		head:    prometheus.NewDesc("freehold_journal_head", "Durable head of the journal.", nil, service),
		lag:     prometheus.NewDesc("freehold_follower_lag_events", "Events behind the source's head.", labels, service),
		seconds: prometheus.NewDesc("freehold_follower_lag_seconds", "Seconds since a follower that is behind last moved.", labels, service),
		parked:  prometheus.NewDesc("freehold_follower_parked_keys", "Keys with parked events.", labels, service),
		stalled: prometheus.NewDesc("freehold_follower_stalled", "1 if the follower is behind and does not move.", labels, service),
	}
	m.registry.MustRegister(m, m.requests, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) gauge(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"service": m.host.name}}, read))
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Describe is part of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.first, m.head, m.lag, m.seconds, m.parked, m.stalled} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if first, head, err := m.host.journal.Bounds(ctx); err == nil {
		gauge(m.first, float64(first.Position))
		gauge(m.head, float64(head.Position))
	}
	for _, st := range m.host.statuses(ctx) {
		gauge(m.lag, float64(st.Lag), st.Follower, string(st.Source))
		gauge(m.seconds, st.Seconds, st.Follower, string(st.Source))
		gauge(m.parked, float64(st.Parked), st.Follower, string(st.Source))
		stalled := 0.0
		if st.Stalled {
			stalled = 1
		}
		gauge(m.stalled, stalled, st.Follower, string(st.Source))
	}
}

// timed measures a handler.
func (m *metrics) timed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		rec := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		m.requests.WithLabelValues(r.Method, strconv.Itoa(rec.status)).Observe(time.Since(begun).Seconds())
	})
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the writer beneath.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }
