{{- define "switchyard-dns.labels" -}}
app.kubernetes.io/name: switchyard-dns
app.kubernetes.io/part-of: switchyard
{{- end }}

{{- define "switchyard-dns.node-labels" -}}
app.kubernetes.io/name: switchyard-dns-node
app.kubernetes.io/part-of: switchyard
{{- end }}

{{- /* What a pod is allowed, and its container: the same for both kinds of pods. */}}
{{- define "switchyard-dns.pod-security" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "switchyard-dns.container" -}}
name: switchyard-dns
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [-conf, /etc/coredns/Corefile]
ports:
  - name: dns
    containerPort: 53
    protocol: UDP
  - name: dns-tcp
    containerPort: 53
    protocol: TCP
  - name: health
    containerPort: 8080
    protocol: TCP
  - name: ready
    containerPort: 8181
    protocol: TCP
  - name: metrics
    containerPort: 9153
    protocol: TCP
livenessProbe:
  httpGet:
    path: /health
    port: health
  initialDelaySeconds: 10
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 5
readinessProbe:
  httpGet:
    path: /ready
    port: ready
  periodSeconds: 2
  timeoutSeconds: 5
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    # For port 53. The image's program has it as file capability: without it here the
    # program can't be started.
    add: [NET_BIND_SERVICE]
volumeMounts:
  - name: config
    mountPath: /etc/coredns
    readOnly: true
{{- end }}
