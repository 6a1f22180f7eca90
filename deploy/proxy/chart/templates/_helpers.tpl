{{- define "switchyard-proxy.labels" -}}
app.kubernetes.io/name: switchyard-proxy
app.kubernetes.io/part-of: switchyard
{{- end }}

{{- define "switchyard-proxy.mode" -}}
{{- $mode := .Values.config.mode | default "iptables" }}
{{- if not (has $mode (list "iptables" "nftables" "ipvs" "ebpf" "auto")) }}
{{- fail (printf "config.mode: %q: expected iptables, nftables, ipvs, ebpf or auto" $mode) }}
{{- end }}
{{- $mode }}
{{- end }}

{{- /* "true" where the pods run iptables programs. */}}
{{- define "switchyard-proxy.tools" -}}
{{- if has (include "switchyard-proxy.mode" .) (list "iptables" "ipvs" "auto") }}true{{ end }}
{{- end }}

{{- /* "true" where the pods load kernel programs. */}}
{{- define "switchyard-proxy.programs" -}}
{{- if has (include "switchyard-proxy.mode" .) (list "ebpf" "auto") }}true{{ end }}
{{- end }}

{{- define "switchyard-proxy.capabilities" -}}
{{- $mode := include "switchyard-proxy.mode" . }}
{{- $all := list "NET_ADMIN" }}
{{- if include "switchyard-proxy.tools" . }}{{ $all = append $all "NET_RAW" }}{{ end }}
{{- if include "switchyard-proxy.programs" . }}{{ $all = concat $all (list "BPF" "PERFMON" "SYS_ADMIN") }}{{ end }}
{{- if eq $mode "ipvs" }}{{ $all = append $all "SYS_ADMIN" }}{{ end }}
{{- $all | sortAlpha | toJson }}
{{- end }}

{{- define "switchyard-proxy.resources" -}}
{{- if .Values.resources }}
{{- toYaml .Values.resources }}
{{- else if include "switchyard-proxy.programs" . -}}
requests:
  cpu: 50m
  memory: 192Mi
limits:
  memory: 512Mi
{{- else -}}
requests:
  cpu: 50m
  memory: 64Mi
limits:
  memory: 256Mi
{{- end }}
{{- end }}

{{- define "switchyard-proxy.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "switchyard-proxy.env" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- if include "switchyard-proxy.tools" . }}
{{- if not (has .Values.iptables (list "nft" "legacy")) }}
{{- fail (printf "iptables: %q: expected nft or legacy" .Values.iptables) }}
{{- end }}
- name: PATH
  value: /usr/lib/switchyard/iptables-{{ .Values.iptables }}:/usr/bin
{{- end }}
{{- end }}

{{- define "switchyard-proxy.mounts" -}}
- name: config
  mountPath: /var/lib/kube-proxy
  readOnly: true
{{- if include "switchyard-proxy.tools" . }}
- name: xtables-lock
  mountPath: /run/xtables.lock
{{- end }}
{{- if include "switchyard-proxy.programs" . }}
- name: cgroup
  mountPath: /sys/fs/cgroup
- name: bpf
  mountPath: /sys/fs/bpf
- name: network-namespaces
  mountPath: /run/netns
  mountPropagation: HostToContainer
{{- end }}
{{- end }}
