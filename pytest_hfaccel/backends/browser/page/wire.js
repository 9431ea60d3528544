// Runs in a worker beside the page: fetches and posts for it. Playwright has DevTools keep the bodies of what a page
// fetches, up to 100 MB: with large inputs, two dozen runs look like a leak. A shared worker it does not watch.

onconnect = ({ ports: [page] }) => {
  page.onmessage = async ({ data: { address, body } }) => {
    try {
      const answer = await fetch(address, body ? { method: "POST", body } : {});
      const content = await answer.arrayBuffer();
      page.postMessage({ status: answer.status, content }, [content]);
    } catch (error) {
      page.postMessage({ status: 0, problem: String(error) });
    }
  };
};
